// The microphone: what it hears becomes a WAV.

import { decode, wav } from "./wav";

const LONGEST_MS = 15_000;

export interface Recording {
  /** 0 to 1, how loud it is now. */
  level(): number;
  stop(): void;
  /** The recording as a WAV, once stopped or after fifteen seconds. */
  done: Promise<Blob>;
}

/** Raises with words for people where there is no microphone or it may not be used. */
export async function record(): Promise<Recording> {
  if (!navigator.mediaDevices) {
    throw new Error("This browser gives a microphone only to pages on https or localhost.");
  }
  const stream = await navigator.mediaDevices
    // What makes speech clear spoils an instrument.
    .getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } })
    .catch((error: DOMException) => {
      throw new Error(
        error.name === "NotAllowedError"
          ? "The microphone is blocked: allow it for this page in the browser's settings."
          : "There is no microphone.",
      );
    });
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 1024 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const recorder = new MediaRecorder(stream);
  const parts: Blob[] = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const done = new Promise<Blob>((resolve, reject) => {
    recorder.onstop = () => {
      clearTimeout(timer);
      stream.getTracks().forEach((track) => track.stop());
      void context.close();
      new Blob(parts).arrayBuffer().then(decode).then(wav).then(resolve, reject);
    };
  });
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  const timer = setTimeout(stop, LONGEST_MS);
  recorder.start();
  return {
    done,
    stop,
    level: () => {
      analyser.getFloatTimeDomainData(samples);
      return Math.min(1, 4 * Math.sqrt(samples.reduce((sum, each) => sum + each * each, 0) / samples.length));
    },
  };
}
