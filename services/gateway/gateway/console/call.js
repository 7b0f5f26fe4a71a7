// One call of this browser: a WebSocket for commands and events, a peer connection for the audio.

const GATHER_MS = 1000; // candidates found later are sent one by one
const GOODBYE_MS = 3000; // how long the server may take to answer a hangup

/** What went wrong, in words for the person at the page. */
export class CallFailed extends Error {
  constructor(message, { needsToken = false } = {}) {
    super(message);
    this.needsToken = needsToken;
  }
}

/**
 * Dispatches `sent` (a command), `received` (an event), `audio` (the remote MediaStream), `trouble` (text) and,
 * once, `over` (whether the server closed normally). The payload is `detail`.
 */
export class Call extends EventTarget {
  #token;
  #socket;
  #peer;
  #microphone;
  #offered = false;
  #over = false;

  constructor(token) {
    super();
    this.#token = token;
  }

  /** Ask for the microphone, then call. Rejects with CallFailed; the call is over then. */
  async start(option, codec) {
    try {
      const iceServers = await this.#iceServers();
      this.#microphone = await microphone();
      this.#check();
      await this.#offer(iceServers, codec);
      this.#socket = await this.#open();
      this.#check();
      this.send({ command: "invite", option: { ...option, offer: this.#peer.localDescription.sdp } });
      this.#offered = true;
    } catch (error) {
      this.#end(false);
      throw error;
    }
  }

  /** The MediaStream of the microphone. */
  get microphone() {
    return this.#microphone;
  }

  /** Send a command; nothing happens when there is no socket (any more). */
  send(command) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify(command));
    this.#tell("sent", command);
  }

  /** Send keys as telephone events; false when the other side takes none. */
  press(keys) {
    const dtmf = this.#peer?.getSenders()[0]?.dtmf;
    if (!dtmf?.canInsertDTMF) return false;
    dtmf.insertDTMF(dtmf.toneBuffer + keys, 120, 70);
    return true;
  }

  /** Mute or unmute the microphone. */
  mute(muted) {
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** Hang up; `over` follows in any case. */
  hangUp() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return this.#end(false);
    this.send({ command: "hangup" });
    setTimeout(() => this.#end(false), GOODBYE_MS);
  }

  async #iceServers() {
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    let answer;
    try {
      answer = await fetch("iceservers", { headers, cache: "no-store" });
    } catch {
      throw new CallFailed("The server can't be reached.");
    }
    if (answer.status === 401) {
      throw new CallFailed("This server needs an access token (see Options).", { needsToken: true });
    }
    if (!answer.ok) throw new CallFailed(`The server answered ${answer.status} to the question for ICE servers.`);
    return answer.json();
  }

  async #offer(iceServers, codec) {
    const peer = (this.#peer = new RTCPeerConnection({ iceServers }));
    const [track] = this.#microphone.getAudioTracks();
    prefer(peer.addTransceiver(track, { streams: [this.#microphone] }), codec);
    peer.addEventListener("track", (event) => {
      this.#tell("audio", event.streams[0] ?? new MediaStream([event.track]));
    });
    peer.addEventListener("icecandidate", ({ candidate }) => {
      if (this.#offered) this.send({ command: "addIceCandidate", ...(candidate?.toJSON() ?? { candidate: "" }) });
    });
    peer.addEventListener("connectionstatechange", () => {
      if (peer.connectionState === "failed") this.#tell("trouble", "No audio: the media connection failed.");
    });
    await peer.setLocalDescription();
    await gathered(peer);
  }

  #open() {
    const url = new URL("call/webrtc", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    url.search = this.#token ? `?${new URLSearchParams({ token: this.#token })}` : "";
    const socket = new WebSocket(url);
    socket.addEventListener("message", ({ data }) => {
      if (typeof data === "string") this.#received(JSON.parse(data));
    });
    socket.addEventListener("close", ({ code }) => this.#end(code === 1000));
    return new Promise((resolve, reject) => {
      socket.addEventListener("open", () => resolve(socket));
      socket.addEventListener("error", () => reject(new CallFailed("The server refused the WebSocket.")));
    });
  }

  async #received(event) {
    this.#tell("received", event);
    if (event.event !== "answer" || event.refer) return;
    try {
      await this.#peer.setRemoteDescription({ type: "answer", sdp: event.sdp });
    } catch (error) {
      this.#tell("trouble", `The browser does not accept the server's answer: ${error.message}`);
      this.hangUp();
    }
  }

  #check() {
    if (this.#over) throw new CallFailed("Cancelled.");
  }

  #end(normally) {
    // Again each time: a microphone that was waited for may come after the end.
    this.#socket?.close();
    this.#peer?.close();
    for (const track of this.#microphone?.getTracks() ?? []) track.stop();
    if (this.#over) return;
    this.#over = true;
    this.#tell("over", normally);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

async function microphone() {
  if (!navigator.mediaDevices) {
    throw new CallFailed("Browsers give the microphone only to pages on localhost or over HTTPS.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const why = error.name === "NotAllowedError" ? "it was not allowed" : error.message;
    throw new CallFailed(`No microphone: ${why}.`);
  }
}

/** Put a codec first in the offer; telephone events and the other codecs stay in it. */
function prefer(transceiver, name) {
  if (!name) return;
  const { codecs } = RTCRtpReceiver.getCapabilities("audio");
  const is = (codec) => codec.mimeType.toLowerCase() === `audio/${name}`;
  transceiver.setCodecPreferences?.([...codecs.filter(is), ...codecs.filter((codec) => !is(codec))]);
}

/** All candidates are in the local description, or the time for that is over. */
function gathered(peer) {
  return new Promise((resolve) => {
    const done = () => peer.iceGatheringState === "complete" && resolve();
    peer.addEventListener("icegatheringstatechange", done);
    setTimeout(resolve, GATHER_MS);
    done();
  });
}
