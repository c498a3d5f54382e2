"use strict";
// A server's responses, by a model that is part of this very page. `prepare` is the project's own.

(() => {
  const text = (id) => document.getElementById(`nbproof-${id}`).textContent.trim();
  const facts = JSON.parse(text("facts"));

  async function unpacked(id) {
    const packed = Uint8Array.from(atob(text(id)), (char) => char.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  async function opened() {
    const script = new Blob([await unpacked("script")], { type: "text/javascript" });
    const ort = await import(URL.createObjectURL(script));
    Object.assign(ort.env.wasm, { wasmBinary: await unpacked("wasm"), numThreads: 1 });
    const providers = { executionProviders: ["wasm"] };
    return { ort, session: await ort.InferenceSession.create(await unpacked("model"), providers) };
  }
  const loading = opened();

  async function run(values) {   // of cases one after the other
    const { ort, session } = await loading;
    const size = facts.shape.reduce((product, length) => product * length, 1);
    const input = new ort.Tensor("float32", values, [values.length / size, ...facts.shape]);
    const found = await session.run({ [session.inputNames[0]]: input });
    return { outputs: found[facts.output].data, oodScores: found.strangeness?.data ?? null };
  }

  async function predict(blob) {
    const began = performance.now(), prepared = await globalThis.prepare(blob, facts.metadata);
    const { outputs, oodScores } = await run(prepared);
    const best = facts.labels[outputs.indexOf(Math.max(...outputs))];
    const score = oodScores ? oodScores[0] : null;
    const knows = facts.limit === null || score <= facts.limit;
    const answer = {
      answer: knows ? best : null, best, probability: Math.max(...outputs), ood_score: score,
      probabilities: Object.fromEntries(facts.labels.map((label, n) => [label, outputs[n]])),
      prepared: [...prepared], id: "local",
    };
    const milliseconds = performance.now() - began;
    return { model: facts.model, version: facts.version, milliseconds, answers: [answer] };
  }

  globalThis.localModel = async (path, { body } = {}) => {
    if (path.startsWith("predict")) return predict(body);
    if (path === "version") return { labels: facts.labels, keeps_inputs: false, champion: facts };
    throw Object.assign(new Error(`There is no ${path} without a server.`), { status: 501 });
  };
  globalThis.localModel.run = run;
})();
