// The official client of the OpenAI API against a gateway: BASE_URL=http://127.0.0.1:7080 KEY=… DEPLOYMENT=… node run.mjs
// CLIENTS=200 adds a round of that many clients at once. Prints a line a check, then "N passed, N failed".
import assert from 'node:assert/strict';
import OpenAI, { AzureOpenAI } from 'openai';

const { BASE_URL, KEY, DEPLOYMENT, CLIENTS = '0' } = process.env;
if (!BASE_URL || !KEY || !DEPLOYMENT) {
  console.error('Set BASE_URL (http://127.0.0.1:7080), KEY and DEPLOYMENT.');
  process.exit(2);
}
const base = BASE_URL.replace(/\/+$/, '');
const apiVersion = '2024-10-21';
const common = { maxRetries: 0, timeout: 120_000 };
const openai = (apiKey = KEY) => new OpenAI({ ...common, apiKey, baseURL: `${base}/v1` });
const azure = (apiKey = KEY, version = apiVersion) =>
  new AzureOpenAI({ ...common, apiKey, endpoint: base, apiVersion: version });

const prompt = 'In the beginning';
const messages = [{ role: 'user', content: 'What was in the beginning?' }];
const few = { model: DEPLOYMENT, max_tokens: 12, temperature: 0 };

function checkUsage(usage) {
  assert.ok(usage.prompt_tokens > 0, `prompt_tokens is ${usage.prompt_tokens}`);
  assert.ok(usage.completion_tokens >= 0 && usage.completion_tokens <= few.max_tokens);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
}

async function collect(stream, textOf) {
  const seen = { text: '', finish: null, usage: null, prompt_filter: null, filter: null };
  for await (const chunk of stream) {
    if (chunk.usage) seen.usage = chunk.usage;
    if (chunk.prompt_filter_results) seen.prompt_filter = chunk.prompt_filter_results;
    const choice = chunk.choices[0];
    if (!choice) continue;
    seen.text += textOf(choice) ?? '';
    seen.finish = choice.finish_reason ?? seen.finish;
    seen.filter = choice.content_filter_results ?? seen.filter;
  }
  return seen;
}

const tests = [];
const test = (name, run) => tests.push({ name, run });

for (const [name, make] of [['OpenAI', openai], ['AzureOpenAI', azure]]) {
  const isAzure = name === 'AzureOpenAI';
  test(`${name}: completion`, async () => {
    const answer = await make().completions.create({ ...few, prompt });
    assert.equal(answer.object, 'text_completion');
    assert.equal(typeof answer.choices[0].text, 'string');
    assert.ok(['stop', 'length'].includes(answer.choices[0].finish_reason));
    checkUsage(answer.usage);
    assert.equal(Boolean(answer.choices[0].content_filter_results), isAzure);
  });
  test(`${name}: completion, streamed, is the same text`, async () => {
    const whole = await make().completions.create({ ...few, prompt });
    const stream = await make().completions.create({ ...few, prompt, stream: true });
    const seen = await collect(stream, (choice) => choice.text);
    assert.equal(seen.text, whole.choices[0].text);
    assert.equal(seen.finish, whole.choices[0].finish_reason);
    assert.equal(seen.usage, null, 'usage was not asked for');
    assert.equal(Boolean(seen.prompt_filter && seen.filter), isAzure);
  });
  test(`${name}: chat completion`, async () => {
    const answer = await make().chat.completions.create({ ...few, messages });
    assert.equal(answer.object, 'chat.completion');
    assert.equal(answer.choices[0].message.role, 'assistant');
    assert.equal(typeof answer.choices[0].message.content, 'string');
    checkUsage(answer.usage);
  });
  test(`${name}: chat completion, streamed, with usage`, async () => {
    const stream = await make().chat.completions.create({
      ...few, messages, stream: true, stream_options: { include_usage: true },
    });
    const seen = await collect(stream, (choice) => choice.delta.content);
    assert.ok(['stop', 'length'].includes(seen.finish));
    checkUsage(seen.usage);
  });
  test(`${name}: a stream that is aborted ends, and the next request is served`, async () => {
    const stream = await make().completions.create({ ...few, prompt, max_tokens: 200, stream: true });
    let chunks = 0;
    for await (const chunk of stream) {
      chunks += chunk.choices.length;
      if (chunks > 0) break;
    }
    assert.ok(stream.controller.signal.aborted, 'leaving the loop aborts the request');
    const answer = await make().completions.create({ ...few, prompt });
    checkUsage(answer.usage);
  });
  test(`${name}: a wrong key is 401`, async () => {
    await assert.rejects(make('0'.repeat(64)).completions.create({ ...few, prompt }), (error) => {
      assert.ok(error instanceof OpenAI.AuthenticationError, `${error}`);
      assert.equal(error.code, 'invalid_api_key');
      return true;
    });
  });
  test(`${name}: an unknown deployment is 404`, async () => {
    await assert.rejects(make().chat.completions.create({ ...few, model: 'no-such-deployment', messages }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError, `${error}`);
      assert.equal(error.code, isAzure ? 'DeploymentNotFound' : 'model_not_found');
      return true;
    });
  });
  test(`${name}: a bad request is 400 and names the field`, async () => {
    await assert.rejects(make().completions.create({ ...few, prompt, max_tokens: -3 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError, `${error}`);
      assert.equal(error.param, 'max_tokens');
      return true;
    });
  });
  test(`${name}: the deployment is among the models`, async () => {
    const ids = [];
    for await (const model of make().models.list()) ids.push(model.id);
    assert.ok(ids.includes(DEPLOYMENT), ids.join(', '));
  });
}

test('AzureOpenAI: an unknown api-version is 400', async () => {
  await assert.rejects(azure(KEY, '1999-01-01').completions.create({ ...few, prompt }), (error) => {
    assert.equal(error.status, 400);
    assert.match(error.message, /1999-01-01/);
    return true;
  });
});

const clients = Number(CLIENTS);
if (clients > 0) {
  test(`${clients} clients at once are all answered`, async () => {
    const one = async (i) => {
      const make = i % 2 ? openai : azure;
      if (i % 4 < 2) return checkUsage((await make().completions.create({ ...few, prompt })).usage);
      const stream = await make().chat.completions.create({ ...few, messages, stream: true });
      const seen = await collect(stream, (choice) => choice.delta.content);
      assert.ok(['stop', 'length'].includes(seen.finish), `finish_reason ${seen.finish}`);
    };
    const results = await Promise.allSettled(Array.from({ length: clients }, (_, i) => one(i)));
    const failures = results.filter((result) => result.status === 'rejected').map((result) => `${result.reason}`);
    assert.deepEqual(failures, []);
  });
}

let failed = 0;
for (const { name, run } of tests) {
  try {
    await run();
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}\n      ${String(error.stack ?? error).replaceAll('\n', '\n      ')}`);
  }
}
console.log(`${tests.length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
