"use strict";
// A server's answers, by a model that is part of this very page. `prepare` is the project's own.

(() => {
  const held = (id) => Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (each) => each.charCodeAt(0));
  const facts = JSON.parse(document.getElementById("nbproof-facts").textContent);

  async function opened() {
    while (!globalThis.ort) await new Promise((done) => setTimeout(done, 10));   // a module, which comes last
    const stream = new Blob([held("nbproof-runtime")]).stream().pipeThrough(new DecompressionStream("gzip"));
    Object.assign(ort.env.wasm, { wasmBinary: await new Response(stream).arrayBuffer(), numThreads: 1 });
    return ort.InferenceSession.create(held("nbproof-model"), { executionProviders: ["wasm"] });
  }
  const session = opened();

  async function run(values) {   // of cases one after the other
    const open = await session, size = facts.shape.reduce((all, length) => all * length, 1);
    const inputs = { [open.inputNames[0]]: new ort.Tensor("float32", values, [values.length / size, ...facts.shape]) };
    const found = await open.run(inputs);
    return { outputs: found[facts.output].data, strangeness: found.strangeness ? found.strangeness.data : null };
  }

  async function predict(blob) {
    const began = performance.now(), prepared = await globalThis.prepare(blob, facts.metadata);
    const { outputs, strangeness } = await run(prepared), place = outputs.indexOf(Math.max(...outputs));
    const strange = strangeness ? strangeness[0] : null, known = facts.limit === null || strange <= facts.limit;
    const answer = {
      answer: known ? facts.labels[place] : null, best: facts.labels[place], probability: outputs[place], strangeness: strange,
      probabilities: Object.fromEntries(facts.labels.map((label, n) => [label, outputs[n]])), prepared: [...prepared], id: "local",
    };
    return { model: facts.model, version: facts.version, milliseconds: performance.now() - began, answers: [answer] };
  }

  globalThis.localModel = async (path, { body } = {}) => {
    if (path.startsWith("predict")) return predict(body);
    if (path === "version") return { labels: facts.labels, keeps_inputs: false, champion: facts };
    throw Object.assign(new Error(`There is no ${path} without a server.`), { status: 501 });
  };
  globalThis.localModel.run = run;
})();
