// Talking to a deployment through the gateway, as any client does, with a key of its own that lives an hour.

import { announce, html, route, useEffect, useRef, useState } from '../parts/core.js';
import { ApiError } from '../parts/api.js';
import { isNew, playgroundKey } from '../parts/playground_key.js';
import { readEvents, useLive } from '../parts/live.js';
import { Card, Copy, Empty, Field, FormProblem, Page, Tabs, useForm } from '../parts/ui.js';

const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const kPaths = { chat: '/v1/chat/completions', text: '/v1/completions' };

function bodyOf(way, deployment, said, { max_tokens, temperature }) {
  const shared = { model: deployment, max_tokens: Number(max_tokens), temperature: Number(temperature), stream: true, stream_options: { include_usage: true } };
  return way === 'chat' ? { ...shared, messages: said.map(({ role, content }) => ({ role, content })) } : { ...shared, prompt: said.at(-1).content };
}

async function ask(url, way, body, signal) {
  for (;;) {
    const answer = await fetch(url + kPaths[way], { method: 'POST', signal, body: JSON.stringify(body), headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${await playgroundKey()}` } });
    if (answer.ok) return answer;
    if (answer.status !== 401 || !isNew()) {
      const { error } = await answer.json().catch(() => ({ error: {} }));
      throw new ApiError(answer.status, { detail: error?.message, code: error?.code });
    }
    await new Promise((done) => setTimeout(done, 400));
  }
}

async function stream(url, way, body, signal, take) {
  const answer = await ask(url, way, body, signal);
  await readEvents(answer, ({ data }) => {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(502, { detail: chunk.error.message, code: chunk.error.code });
    const choice = chunk.choices?.[0];
    take(choice?.delta?.content ?? choice?.text ?? '', choice?.finish_reason, chunk.usage);
  });
}

function samples(url, way, deployment) {
  const chat = way === 'chat', call = chat ? 'chat.completions' : 'completions';
  const input = { curl: chat ? '"messages": [{"role": "user", "content": "Hello"}]' : '"prompt": "In the beginning"',
    python: chat ? 'messages=[{"role": "user", "content": "Hello"}]' : 'prompt="In the beginning"',
    javascript: chat ? 'messages: [{ role: "user", content: "Hello" }]' : 'prompt: "In the beginning"' };
  const delta = chat ? 'delta.content' : 'text';
  return {
    curl: `curl -N ${url}${kPaths[way]} \\\n  -H "Authorization: Bearer $TH_KEY" -H "Content-Type: application/json" \\\n  -d '{"model": "${deployment}", "stream": true, "max_tokens": 64,\n       ${input.curl}}'`,
    python: `import os\nfrom openai import OpenAI\n\nclient = OpenAI(base_url="${url}/v1", api_key=os.environ["TH_KEY"])\nstream = client.${call}.create(\n    model="${deployment}", stream=True, max_tokens=64,\n    ${input.python})\nfor chunk in stream:\n    print(chunk.choices[0].${delta} or "", end="", flush=True)`,
    javascript: `import OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${url}/v1", apiKey: process.env.TH_KEY });\nconst stream = await client.${call}.create({\n  model: "${deployment}", stream: true, max_tokens: 64,\n  ${input.javascript} });\nfor await (const chunk of stream) process.stdout.write(chunk.choices[0]?.${delta} ?? "");`,
  };
}

function Samples({ url, way, deployment }) {
  const [language, choose] = useState('curl'), text = samples(url, way, deployment)[language];
  return html`<${Card} title="The same from a program" actions=${html`<${Copy} text=${text} />`}>
    <${Tabs} label="Language" current=${language} choose=${choose} tabs=${[{ id: 'curl', text: 'curl' }, { id: 'python', text: 'Python' }, { id: 'javascript', text: 'JavaScript' }]} />
    <pre class="code" tabindex="0" aria-label="Sample in ${language}">${text}</pre>
    <p class="muted">TH_KEY is a key of yours; make one under <a href="#/access">Access</a>.</p><//>`;
}

export default function Playground() {
  const deployments = useLive('/deployments', ['deployment_']), gateway = useLive('/session');
  const ready = (deployments.data?.items || []).filter((d) => d.state === 'ready');
  const form = useForm({ deployment: route.get().query.get('deployment') || '', prompt: '', max_tokens: '64', temperature: '0.7' });
  const [way, setWay] = useState('chat'), [said, setSaid] = useState([]), [speed, setSpeed] = useState(null);
  const stop = useRef(null), end = useRef(null);
  const deployment = ready.some((d) => d.name === form.values.deployment) ? form.values.deployment : ready[0]?.name;
  const url = gateway.data?.gateway_url;
  useEffect(() => () => stop.current?.abort(), []);
  useEffect(() => void (end.current && (end.current.scrollTop = end.current.scrollHeight)), [said]);

  const send = (event) => {
    event.preventDefault();
    const content = form.values.prompt;
    if (!content.trim()) return;
    const before = way === 'chat' ? said.filter((m) => m.content) : [], asked = [...before, { role: 'user', content }];
    stop.current = new AbortController();
    form.set({ prompt: way === 'chat' ? '' : content });
    setSaid([...asked, { role: 'assistant', content: '' }]);
    form.run(async () => {
      const begun = performance.now();
      let text = '', first = 0, pieces = 0;
      try {
        await stream(url, way, bodyOf(way, deployment, asked, form.values), stop.current.signal, (piece, _, usage) => {
          if (piece) (first ||= performance.now()), pieces++;
          text += piece;
          setSaid([...asked, { role: 'assistant', content: text }]);
          const tokens = usage?.completion_tokens ?? pieces;
          setSpeed({ first_ms: (first || performance.now()) - begun, tokens, ms: performance.now() - begun });
        });
        announce(`Answer: ${text}`);
      } catch (error) {
        if (error.name !== 'AbortError') throw error;
      }
    });
  };

  if (deployments.data && !ready.length) {
    return html`<${Page} title="Playground"><${Empty} title="No deployment is ready">Deploy a model first. <a href="#/models">To the models</a><//><//>`;
  }
  return html`<${Page} title="Playground" lead="Through the gateway, as any client; with a key that only this page has and that ends in an hour.">
    ${gateway.data && !url && html`<p class="note warn">The controller knows of no gateway; start it: th up</p>`}
    <div class="columns wide-left">
      <${Card} title=${deployment ? `Talk to ${deployment}` : 'Talk'} actions=${said.length > 0 && html`<button class="quiet" onClick=${() => (stop.current?.abort(), setSaid([]), setSpeed(null))}>Begin again</button>`}>
        ${said.length > 0 && html`<div class="chat" ref=${end} role="log" aria-label="Conversation" aria-live="off" tabindex="0">${said.map((m) => html`
          <div class="said ${m.role}"><b>${m.role === 'user' ? 'You' : deployment}</b>${m.content || '…'}</div>`)}</div>`}
        <form onSubmit=${send}>
          <${Field} form=${form} name="prompt" label=${way === 'chat' ? 'Message' : 'Text to continue'} rows=${3}
            onKeyDown=${(e) => e.key === 'Enter' && !e.shiftKey && !e.isComposing && send(e)} hint="Enter sends, Shift + Enter begins a line" />
          <${FormProblem} form=${form} />
          <div class="buttons">${speed && html`<span class="muted" data-speed>${speed.tokens} tokens in ${seconds(speed.ms)}, the first after ${seconds(speed.first_ms)}</span>`}
            ${form.busy ? html`<button type="button" class="secondary" onClick=${() => stop.current.abort()}>Stop</button>` : html`<button disabled=${!url || !deployment}>Send</button>`}</div>
        </form><//>
      <${Card} title="Settings"><div class="fields">
        <${Field} form=${{ ...form, values: { ...form.values, deployment } }} name="deployment" label="Deployment" options=${ready.map((d) => d.name)} />
        <div class="field"><${Tabs} label="Kind of request" current=${way} choose=${(id) => (setWay(id), setSaid([]))} tabs=${[{ id: 'chat', text: 'Chat' }, { id: 'text', text: 'Continue a text' }]} /></div>
        <${Field} form=${form} name="max_tokens" label="Most tokens" type="number" min="1" max="4096" />
        <${Field} form=${form} name="temperature" label="Temperature" type="number" min="0" max="2" step="0.1" />
      </div><//>
    </div>
    ${url && deployment && html`<${Samples} url=${url} way=${way} deployment=${deployment} />`}<//>`;
}
