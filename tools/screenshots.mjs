// Makes docs/images/*.png: the console over a desk that trains and serves, and over the twin's fleet of 131,072 GPUs.
// Usage: TH_BIN=build/release TH_SOURCE=. node tools/screenshots.mjs [desk|twin]     (make screenshots)

import { spawn } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fill, heading, launch, open, press, until, visit } from '../tests/browser/browser.mjs';
import { Desk } from '../tests/browser/desk.mjs';

const folder = join(process.env.TH_SOURCE, 'docs/images'), kMaxBytes = 200_000;
const only = process.argv[2];
mkdirSync(folder, { recursive: true });

async function take(page, name) {
  await page.waitForTimeout(700);  // charts and transitions settle
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  const { size } = statSync(path);
  if (size >= kMaxBytes) throw new Error(`${path} has ${size} bytes; at most ${kMaxBytes} are kept`);
  console.log(`${path} ${size} bytes`);
}

async function signIn(browser, url, key, looks) {
  const visitor = await visit(browser, url, looks), { page } = visitor;
  await page.goto('/');
  await heading(page, 'Sign in');
  await press(page, 'Key');
  await fill(page, 'Key', key);
  await press(page, 'Sign in');
  await heading(page, 'Fleet');
  return visitor;
}

async function desk(browser) {
  const desk = new Desk();
  try {
    const slice = async (name, gpus) => {
      await desk.api('POST', '/slices', { name, gpus, series: 'LOCAL', duration_ns: 4 * 3600e9 });
      await desk.api('POST', `/slices/${name}/commit`);
      await until(name, async () => (await desk.api('GET', `/slices/${name}`)).state === 'ready');
    };
    const train = async (name, steps, slice) => {
      const { job } = await desk.api('POST', '/recipes/check', { yaml: desk.recipe(name, steps) });
      return desk.api('POST', '/jobs', { ...job, slice });
    };
    await slice('demo', 4);
    const first = await train('llama-small', 400, 'demo');
    await until('the first training', async () => (await desk.api('GET', `/jobs/${first.id}`)).state === 'succeeded');
    await desk.api('POST', '/deployments', { name: 'small-chat', model: 'llama-small', slice: 'demo' });
    await until('the deployment', async () => (await desk.api('GET', '/deployments/small-chat')).state === 'ready');
    const job = await train('llama-tiny', 6000, 'demo');
    const { page } = await signIn(browser, desk.url, desk.key, { width: 1280, height: 800 });
    await until('the training to run', async () => (await desk.api('GET', `/jobs/${job.id}`)).progress?.step > 800);
    await page.locator('canvas').first().focus();
    await page.keyboard.press('ArrowRight');
    await page.getByRole('heading', { name: /^Host/ }).waitFor();
    await take(page, 'console-fleet');
    const dark = await signIn(browser, desk.url, desk.key, { width: 1280, height: 800, dark: true });
    await dark.page.goto(`/#/jobs/${job.id}`);
    await dark.page.locator('.chart canvas').first().waitFor();
    await take(dark.page, 'console-job');
    const phone = await signIn(browser, desk.url, desk.key, { width: 390, height: 800 });
    await open(phone.page, 'Playground');
    await fill(phone.page, 'Message', 'In the beginning');
    await press(phone.page, 'Send');
    await phone.page.locator('[data-speed]').waitFor();
    await until('the answer to end', () => phone.page.getByRole('button', { name: 'Send' }).isVisible());
    await take(phone.page, 'console-phone');
  } finally {
    desk.down();
  }
}

/** th-sim serve prints where it listens and with which key, as one line of JSON. */
async function twin(browser) {
  const served = spawn(join(process.env.TH_BIN, 'th-sim'), ['serve', '--preset', 'hyperscale-131k', '--port', '0', '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    let place = null;
    for await (const line of createInterface({ input: served.stdout })) {
      if (line.startsWith('{') && (place = JSON.parse(line)).url) break;
    }
    if (!place?.url) throw new Error('th-sim serve did not say where it listens');
    const { page } = await signIn(browser, place.url, place.key, { width: 1280, height: 900 });
    await page.locator('canvas').first().waitFor();
    await page.waitForTimeout(4000);
    await take(page, 'console-twin');
  } finally {
    served.kill('SIGTERM');
  }
}

const browser = await launch();
try {
  if (only !== 'twin') await desk(browser);
  if (only !== 'desk') await twin(browser);
} finally {
  await browser.close();
}
