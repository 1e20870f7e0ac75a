// What llama.cpp makes of a GGUF file, as JSON: how it cuts texts, and how likely it holds each next token.
//   node run.mjs '{"file": "x.gguf", "texts": ["In the"], "predict": [[1, 2, 3]]}'
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const { file, texts, predict } = JSON.parse(process.argv[2]);
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, maxThreads: 2, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: file });
const sequence = (await model.createContext({ contextSize: 64, sequences: 1 })).getSequence();
const tokens = texts.map((text) => model.tokenize(text));
const predicted = [];
for (const ids of predict) {
  await sequence.clearHistory();
  const last = [ids.at(-1), { generateNext: { probabilities: true, options: { temperature: 1, topK: 0, topP: 1, minP: 0 } } }];
  const output = await sequence.controlledEvaluate([...ids.slice(0, -1), last]);
  predicted.push(Object.fromEntries(output.at(-1).next.probabilities));
}
const { bos, eos } = model.tokens;
console.log(JSON.stringify({ bos, eos, tokens, decoded: tokens.map((ids) => model.detokenize(ids)), predicted }));
process.exit(0);
