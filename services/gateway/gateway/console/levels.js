// Level meters: how loud a MediaStream is, shown on an element with role "meter".

const FLOOR_DB = -60;
const SPOKEN_EVERY_MS = 250; // the ARIA value changes this often; the bar follows every frame

/** Both meters of a call. */
export class Levels {
  #context = new AudioContext();
  #meters = [];
  #frame = requestAnimationFrame(() => this.#draw());
  #spokenAt = 0;

  /** Show a stream on an element. */
  show(stream, element) {
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    const source = this.#context.createMediaStreamSource(stream);
    source.connect(analyser);
    this.#meters.push({ analyser, element, source, samples: new Float32Array(analyser.fftSize) });
  }

  /** Set every meter to nothing and let go of the streams. */
  stop() {
    cancelAnimationFrame(this.#frame);
    for (const { element } of this.#meters) setLevel(element, 0, true);
    this.#context.close();
  }

  #draw() {
    const now = performance.now();
    const spoken = now - this.#spokenAt > SPOKEN_EVERY_MS;
    if (spoken) this.#spokenAt = now;
    for (const { analyser, element, samples } of this.#meters) {
      analyser.getFloatTimeDomainData(samples);
      const rms = Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
      const db = rms > 0 ? 20 * Math.log10(rms) : FLOOR_DB;
      setLevel(element, Math.min(1, Math.max(0, 1 - db / FLOOR_DB)), spoken);
    }
    this.#frame = requestAnimationFrame(() => this.#draw());
  }
}

function setLevel(element, level, spoken) {
  element.style.setProperty("--level", level.toFixed(3));
  if (spoken) element.setAttribute("aria-valuenow", Math.round(level * 100));
}
