// A program of the Go SDK's kind, driven by flags: it calls out or answers by webhook, listens, speaks in segments or
// streaming, lets itself be interrupted, transfers and hangs up. What it sees it prints as JSON lines.
//
// It imports the SDK as it is. Where the module can't be had, standin.mod puts ./standin in its place, which binds
// events as strictly as the SDK does and offers the same calls.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/restsend/rustpbxgo"
)

var (
	endpoint  = flag.String("endpoint", "", "ws://host:port of the exchange")
	mode      = flag.String("mode", "sip", "sip, webrtc or webhook")
	caller    = flag.String("caller", "", "caller of a call out")
	callee    = flag.String("callee", "", "callee of a call out")
	username  = flag.String("username", "", "SIP user")
	password  = flag.String("password", "", "SIP password")
	codec     = flag.String("codec", "pcmu", "codec of a WebRTC call")
	greeting  = flag.String("greeting", "Hello, how can I help you?", "said first")
	reply     = flag.String("reply", "", "said to the first thing that is understood")
	streaming = flag.Bool("streaming", false, "stream the reply")
	ringtone  = flag.String("ringtone", "", "ring before answering")
	referTo   = flag.String("refer", "", "transfer after the reply")
	speaker   = flag.String("speaker", "601003", "voice")
	provider  = flag.String("provider", "tencent", "provider of recognition and speech")
)

var output sync.Mutex

// say prints one JSON line.
func say(what string, fact any) {
	output.Lock()
	defer output.Unlock()
	line, err := json.Marshal(map[string]any{"saw": what, "fact": fact})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func option() rustpbxgo.CallOption {
	return rustpbxgo.CallOption{
		Denoise:  true,
		Recorder: &rustpbxgo.RecorderOption{Samplerate: 16000},
		VAD:      &rustpbxgo.VADOption{Type: "silero", SilenceTimeout: 5000},
		ASR:      &rustpbxgo.ASROption{Provider: *provider, SampleRate: 16000},
		TTS:      &rustpbxgo.TTSOption{Provider: *provider, Speaker: *speaker, MaxConcurrentTasks: 3},
	}
}

// connect opens a session whose callbacks print what comes, and answer as a conversation would.
func connect(ctx context.Context, id, kind string) (*rustpbxgo.Client, chan string, error) {
	client := rustpbxgo.NewClient(*endpoint, rustpbxgo.WithContext(ctx), rustpbxgo.WithID(id), rustpbxgo.WithDumpEvents(true))
	closed := make(chan string, 1)
	var once sync.Once
	client.OnClose = func(reason string) { say("close", reason); closed <- reason }
	client.OnEvent = func(event string, payload string) { say("event", event) }
	client.OnIncoming = func(event rustpbxgo.IncomingEvent) { say("incoming", event) }
	client.OnRinging = func(event rustpbxgo.RingingEvent) { say("ringing", event) }
	client.OnReject = func(event rustpbxgo.RejectEvent) { say("reject", event) }
	client.OnHangup = func(event rustpbxgo.HangupEvent) { say("hangup", event) }
	client.OnTrackStart = func(event rustpbxgo.TrackStartEvent) { say("trackStart", event) }
	client.OnTrackEnd = func(event rustpbxgo.TrackEndEvent) { say("trackEnd", event) }
	client.OnInterruption = func(event rustpbxgo.InterruptionEvent) { say("interruption", event) }
	client.OnDTMF = func(event rustpbxgo.DTMFEvent) { say("dtmf", event) }
	client.OnMetrics = func(event rustpbxgo.MetricsEvent) { say("metrics", event) }
	client.OnAddHistory = func(event rustpbxgo.AddHistoryEvent) { say("addHistory", event) }
	client.OnSilence = func(event rustpbxgo.SilenceEvent) { say("silence", event) }
	client.OnError = func(event rustpbxgo.ErrorEvent) { say("error", event) }
	client.OnPing = func(event rustpbxgo.PingEvent) { say("ping", event) }
	client.OnSpeaking = func(event rustpbxgo.SpeakingEvent) {
		say("speaking", event)
		client.Interrupt(true)
	}
	client.OnAsrDelta = func(event rustpbxgo.AsrDeltaEvent) {
		say("asrDelta", *event.EndTime-*event.StartTime) // a pointer that is nil ends this program
		client.Interrupt(true)
	}
	client.OnAsrFinal = func(event rustpbxgo.AsrFinalEvent) {
		say("asrFinal", map[string]any{"text": event.Text, "took": *event.EndTime - *event.StartTime})
		if event.Text == "" {
			return
		}
		client.History("user", event.Text)
		client.Interrupt(true)
		if *reply != "" {
			once.Do(func() { respond(client) })
		}
	}
	return client, closed, client.Connect(kind)
}

// respond speaks the reply as a language model's words come, then transfers.
func respond(client *rustpbxgo.Client) {
	if *streaming {
		stream(client, "reply")
	} else {
		segments(client, "reply")
	}
	client.History("bot", *reply)
	if *referTo != "" {
		time.Sleep(500 * time.Millisecond)
		client.Refer(*caller, *referTo, nil)
	}
}

// segments sends every part up to a punctuation mark as one command, and the rest, which may be empty, as the last.
func segments(client *rustpbxgo.Client, playID string) {
	ends := regexp.MustCompile(`[.,;:!?]\s*`)
	rest := *reply
	for at := ends.FindStringIndex(rest); at != nil; at = ends.FindStringIndex(rest) {
		client.TTS(rest[:at[1]], "", playID, false, false, nil, nil, false)
		rest = rest[at[1]:]
	}
	client.TTS(rest, "", playID, true, false, nil, nil, false)
}

// stream sends fragments as they come. The empty one at the end is dropped, so that nobody says that it was the last.
func stream(client *rustpbxgo.Client, playID string) {
	for _, fragment := range strings.SplitAfter(*reply, " ") {
		client.StreamTTS(fragment, "", playID, false, false, nil, nil, false)
	}
}

// obey takes what the test writes, a command a line, until the input ends.
func obey(client *rustpbxgo.Client) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case "say":
			client.TTS(rest, "", "1", true, false, nil, nil, false)
		case "interrupt":
			client.Interrupt(false)
		case "play":
			client.Play(rest, false, nil)
		case "refer":
			client.Refer(*caller, rest, nil)
		case "hangup":
			client.Hangup(rest)
		}
	}
}

func main() {
	flag.Parse()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if *mode == "webhook" {
		answer(ctx)
		return
	}
	call := option()
	var media *peer
	if *mode == "sip" {
		call.Caller, call.Callee = *caller, *callee
		call.Sip = &rustpbxgo.SipOption{Username: *username, Password: *password}
	} else {
		iceServers(*endpoint)
		media = newPeer(*codec)
		defer media.close()
		call.Offer = media.offer()
	}
	client, closed, err := connect(ctx, "", *mode)
	if err != nil {
		say("failed", err.Error())
		os.Exit(1)
	}
	defer client.Shutdown()
	answered, err := client.Invite(ctx, call)
	if err != nil {
		say("not answered", err.Error())
		<-closed
		time.Sleep(500 * time.Millisecond)
		return
	}
	say("answer", answered)
	if media != nil {
		media.answered(answered.Sdp)
	}
	if *greeting != "" {
		client.TTS(*greeting, "", "1", true, false, nil, nil, false)
	}
	go obey(client)
	<-closed
	time.Sleep(500 * time.Millisecond) // each event has a goroutine of its own, also the last ones
}

// answer serves a webhook and takes every call: connected before the webhook is answered, speaking 300 ms after accept.
func answer(ctx context.Context) {
	type announcement struct {
		DialogID, CreatedAt, Caller, Callee, Event, Offer string
	}
	http.HandleFunc("/webhook", func(w http.ResponseWriter, r *http.Request) {
		var body announcement
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		say("announced", body)
		client, closed, err := connect(ctx, body.DialogID, "sip")
		if err != nil {
			say("failed", err.Error())
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		go func() {
			defer client.Shutdown()
			if *ringtone != "" {
				client.Ringing(*ringtone, &rustpbxgo.RecorderOption{Samplerate: 16000})
				time.Sleep(time.Second)
			}
			client.Accept(option())
			time.Sleep(300 * time.Millisecond)
			client.TTS(*greeting, "", "", true, false, nil, nil, false)
			go obey(client)
			<-closed
		}()
		fmt.Fprint(w, `{"message":"OK"}`)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	say("listening", fmt.Sprintf("http://%s/webhook", listener.Addr()))
	panic(http.Serve(listener, nil))
}
