// The main job by clicking, on a real desk: in by an invitation, offer, commit, submit, watch the loss fall, deploy, chat, see
// the cost; again at phone width; the controller dies and comes back. Prints figures as one line of JSON, last.

import assert from 'node:assert/strict';
import { check, figure, fill, follow, heading, launch, open, press, until, visit } from './browser.mjs';
import { Desk } from './desk.mjs';

const say = (text) => console.log(`[${((Date.now() - begun) / 1000).toFixed(1)} s] ${text}`);
const begun = Date.now(), figures = {};

async function firstVisit(browser, desk) {
  const visitor = await visit(browser, desk.url), { page } = visitor;
  const network = await page.context().newCDPSession(page), hosts = new Set();
  let bytes = 0;
  await network.send('Network.enable');
  network.on('Network.loadingFinished', (event) => (bytes += event.encodedDataLength));
  page.on('request', (request) => hosts.add(new URL(request.url()).host));
  await page.goto('/');
  await heading(page, 'Sign in');
  const paint = () => page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  figures.first_paint_ms = Math.round(await until('the first paint', paint));
  figures.sign_in_bytes = bytes;
  await check(visitor, 'sign-in');
  await page.close();
  return { hosts, bytes: () => bytes };
}

const kPassword = 'correct horse battery staple';

async function comeIn(visitor, desk, name, passwords) {
  const { page } = visitor;
  const { link } = await desk.api('POST', '/invitations', { tenant: 'default', role: 'admin' });
  await page.goto(link);
  await heading(page, 'You are invited');
  await check(visitor, 'the invitation');
  await fill(page, 'Name', name);
  if (passwords) await fill(page, 'Password', kPassword);
  await press(page, 'Come in');
  await heading(page, 'You are in');
  await press(page, 'Go to the console');
  await heading(page, 'Fleet');
}

async function lookAtTheFleet(visitor) {
  const { page } = visitor;
  await until('its figures', async () => /of 8/.test(await page.locator('.stats').first().innerText().catch(() => '')));
  await check(visitor, 'the fleet');
  await page.locator('canvas').first().focus();
  await page.keyboard.press('ArrowRight');
  await page.getByRole('heading', { name: /^Host r1h1/ }).waitFor();
  await check(visitor, 'a host');
}

async function getASlice(visitor, name, gpus) {
  const { page } = visitor;
  await open(page, 'Slices');
  await heading(page, 'Slices');
  await check(visitor, 'slices');
  await follow(page, 'Get a slice');
  await fill(page, 'Name', name);
  await fill(page, 'GPUs', String(gpus));
  await fill(page, 'For', 'a while');
  await press(page, 'Get an offer');
  await page.getByText('Such as 90s, 45min, 2h or 1d 12h.').first().waitFor();
  await fill(page, 'For', '1h');
  await press(page, 'Get an offer');
  await page.locator('.price').waitFor();
  assert.match(await page.locator('.price').innerText(), new RegExp(`\\$0\\.${gpus}0`), 'a LOCAL GPU-hour is $0.10');
  await check(visitor, 'an offer');
  await press(page, 'Commit: get it now');
  await heading(page, name);
  await until('the slice to be ready', async () => (await figure(page, 'State')) === 'ready');
  await check(visitor, 'a slice');
}

async function train(visitor, desk, name, slice, steps) {
  const { page } = visitor;
  await follow(page, 'Submit a job here');
  await heading(page, 'Submit a job');
  await until('the starter', async () => (await page.getByLabel('Recipe (YAML)').inputValue()).includes('llama-tiny'));
  await until('its slice', async () => (await page.getByLabel('On slice').inputValue()) === slice);
  await press(page, 'Check and estimate');  // as it comes
  await page.getByRole('heading', { name: 'If it is submitted now' }).waitFor();
  await fill(page, 'Recipe (YAML)', desk.recipe(name, steps).replace('retries:', 'retires:'));
  await press(page, 'Check and estimate');
  await page.getByText("did you mean 'retries'?").first().waitFor();
  await check(visitor, 'a recipe that is wrong');
  await fill(page, 'Recipe (YAML)', desk.recipe(name, steps));
  await press(page, 'Check and estimate');
  await page.getByRole('heading', { name: 'If it is submitted now' }).waitFor();
  await press(page, 'Submit');
  await heading(page, name);
  const loss = async () => Number(await figure(page, 'Loss'));
  const first = await until('a loss', loss);
  const drawn = () => page.evaluate(() => [...document.querySelectorAll('.chart canvas')].map((c) => c.toDataURL().length).join());
  const curve = await until('a curve', drawn);
  await until('the loss to fall while one watches', async () => (await loss()) < first - 0.5);
  await until('the curve to move', async () => (await drawn()) !== curve);
  await press(page, 'Output');
  await page.getByRole('log').getByText(/step +\d+\//).first().waitFor();
  await check(visitor, 'the output of a job');
  await press(page, 'Progress');
  await until('the job to succeed', async () => (await figure(page, 'State')) === 'succeeded');
  await check(visitor, 'a job');
  await press(page, 'About');
  await check(visitor, 'about a job');
  await open(page, 'Jobs');
  await page.getByRole('cell', { name: new RegExp(name) }).first().waitFor();
  await check(visitor, 'jobs');
}

/** A line, colours, a program that draws on the whole screen, and a window that changes. */
async function useTheShell(visitor, desk, slice) {
  const { page, width } = visitor;
  const job = await desk.api('POST', '/jobs', { name: `beside-${slice}`, gpus: 1, slice, command: ['sleep', '600'] });
  await page.goto(`/#/jobs/${job.id}`);
  await until('it to run', async () => (await figure(page, 'State').catch(() => '')) === 'running');
  await press(page, 'Shell');
  await press(page, 'Open a shell');
  const keys = page.getByRole('textbox', { name: /^Shell beside rank 0/ }), rows = page.locator('.xterm-rows');
  const sees = (what, text) => until(what, async () => text.test(await rows.innerText()));
  const run = async (line) => (await keys.pressSequentially(line), keys.press('Enter'));
  await sees('the shell to ask for a line', /[$#]/);
  await run('echo "at $((6 * 7))"');
  await sees('what the line says', /^at 42\s*$/m);
  await run("printf '\\033[31mred\\033[38;2;10;200;30mgreen\\033[0m\\n'");
  const color = (text) => rows.locator('span').getByText(text, { exact: true }).evaluate((span) => getComputedStyle(span).color);
  assert.match(await color('red'), /^rgb\(2\d\d, \d+, \d+\)/);
  assert.equal(await color('green'), 'rgb(10, 200, 30)');
  await check(visitor, 'a shell');
  await run('seq -f "line %g" 500 | less');
  await sees('the first page', /^line 1\s*$/m);
  assert.doesNotMatch(await rows.innerText(), /at 42/, 'a full screen of its own');
  await keys.press('Shift+G');
  await sees('the last page', /^line 500\s*$/m);
  await page.setViewportSize({ width, height: 500 });
  await keys.press('g');
  await until('a smaller page', async () => /^line 1\s*$/m.test(await rows.innerText()) && (await rows.locator('div').count()) < 24);
  await keys.press('q');
  await sees('the shell as it was', /^at 42\s*$/m);
  await run('echo "$(stty size) of $(tput lines)"');
  await until('the size to be known', async () => new RegExp(`^${await rows.locator('> div').count()} \\d+ of`, 'm').test(await rows.innerText()));
  await page.setViewportSize({ width, height: 860 });
  await keys.press('Control+d');
  await page.getByText(/^Ended with exit code 0/).waitFor();
  await desk.api('DELETE', `/jobs/${job.id}`);
}

async function deployAndChat(visitor, model, name) {
  const { page } = visitor;
  await open(page, 'Models');
  await page.getByRole('row', { name: new RegExp(`${model} `) }).getByRole('button', { name: 'Deploy' }).click();
  await fill(page, 'Served under the name', name);
  await check(visitor, 'the form of a deployment');
  await page.getByRole('dialog').getByRole('button', { name: 'Deploy' }).click();
  const card = page.getByRole('region', { name, exact: true });
  await card.getByRole('link', { name: 'Try it' }).waitFor();
  await until('its queue', async () => /^\d/.test(await card.locator('.stat', { hasText: 'Queue' }).locator('.value').innerText()));
  await check(visitor, 'models');
  await card.getByRole('link', { name: 'Try it' }).click();
  await heading(page, 'Playground');
  await fill(page, 'Message', 'In the beginning');
  await press(page, 'Send');
  const pieces = new Set();
  await until('the answer to end', async () => {
    pieces.add(await page.locator('.said.assistant').last().innerText().catch(() => ''));
    return page.getByRole('button', { name: 'Send' }).isVisible();
  });
  await page.locator('[data-speed]').waitFor();
  const answer = await page.locator('.said.assistant').last().innerText();
  assert.ok(answer.length > 20, `an answer: ${answer}`);
  for (const language of ['Python', 'JavaScript']) {
    await press(page, language);
    await page.locator('.code', { hasText: name }).waitFor();
  }
  await check(visitor, 'the playground');
  return pieces.size;
}

async function seeTheCost(visitor) {
  const { page } = visitor;
  await open(page, 'Usage');
  await until('tokens', async () => Number((await figure(page, 'Tokens')).replace(/\D/g, '')) > 0);
  assert.match(await figure(page, 'Cost in all'), /^\$0\.0*[1-9]/);
  await page.locator('.chart canvas').first().waitFor();
  await check(visitor, 'usage');
  await press(page, 'Tokens');
  await page.getByText(/^Tokens: [1-9]\S* in 24 hours$/).waitFor();
  await page.getByText('As a table').click();
  await page.getByRole('table', { name: 'Over time by tenant' }).getByRole('columnheader', { name: 'default' }).waitFor();
  await check(visitor, 'tokens over time');
}

async function otherPages(visitor) {
  const { page } = visitor;
  await open(page, 'Twin');
  await page.getByLabel('Report, as th-sim prints it with --json').setInputFiles({ name: 'r.json', mimeType: 'application/json',
    buffer: Buffer.from('{"command":"place","gangs":12,"curve":[1,2,4,8],"rows":[{"policy":"fifo","wait_s":1.5},{"policy":"fair","wait_s":0.5}]}') });
  await page.getByRole('cell', { name: 'fair' }).waitFor();
  await check(visitor, 'the twin');
  await open(page, 'Access');
  await page.getByRole('heading', { name: /Passkeys|You/ }).first().waitFor();
  await check(visitor, 'access: You');
  for (const tab of ['Tenants', 'People', 'Invitations', 'Applications', 'Keys', 'Audit log']) {
    await press(page, tab);
    await page.locator('.card').getByRole('heading', { name: tab }).waitFor();
    await check(visitor, `access: ${tab}`);
  }
}

async function loseTheController(visitor, operator, desk) {
  const { page } = visitor;
  await open(page, 'Fleet');
  await page.getByText('Live', { exact: true }).waitFor({ state: 'attached' });
  desk.kill();
  await page.getByText('Connection lost.', { exact: true }).waitFor();
  await check(visitor, 'a lost connection');
  const lost = Date.now();
  desk.restart();
  await page.getByText('Connection lost.', { exact: true }).waitFor({ state: 'detached' });
  figures.back_ms = Date.now() - lost;
  await drain(operator);
  await until('the drain to be seen without asking', async () => (await figure(page, 'Out of use')) === '1');
}

/** What only the platform's operators may. */
async function drain(operator) {
  const { page } = operator;
  await page.getByText('r2h2', { exact: true }).first().evaluate((cell) => (cell.closest('details').open = true));
  await press(page, /^r2h2,/);
  await press(page, 'Drain');
  await fill(page, 'Reason', 'a fan is loud');
  await check(operator, 'the question before a drain');
  await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
  await page.getByText('a fan is loud').first().waitFor();
  await press(page, 'Resume');
  await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('button', { name: 'Drain' }).waitFor();
  await press(page, 'Drain');
  await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
}

async function signInByPassword({ page }, name) {
  await page.goto('/');
  await fill(page, 'Name', name);
  await fill(page, 'Password', kPassword);
  await press(page, 'Sign in');
  await heading(page, 'Fleet');
}

/** With Chromium's virtual authenticator. A passkey is bound to a host name, which an IP address is not. */
async function byPasskey(browser, desk, name) {
  const visitor = await visit(browser, desk.url.replace('127.0.0.1', 'localhost')), { page } = visitor;
  const devices = await page.context().newCDPSession(page);
  await devices.send('WebAuthn.enable');
  await devices.send('WebAuthn.addVirtualAuthenticator', { options: { protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true } });
  await signInByPassword(visitor, name);
  await open(page, 'Access');
  await fill(page, 'Name of a new passkey', 'laptop');
  await press(page, 'Add a passkey');
  await page.getByRole('cell', { name: 'laptop' }).waitFor();
  await press(page, 'Sign out');
  await press(page, 'Use a passkey');
  await heading(page, 'Access');
  return visitor;
}

async function signInByKey(visitor, desk) {
  const { page } = visitor;
  await page.goto('/');
  await press(page, 'Key');
  await fill(page, 'Key', 'not a key');
  await press(page, 'Sign in');
  await page.getByText(/wrong, expired or revoked key/).first().waitFor();
  await check(visitor, 'a key that is wrong');
  await fill(page, 'Key', desk.key);
  await press(page, 'Sign in');
  await heading(page, 'Fleet');
}

async function mainJob(visitor, desk, { slice, model, gpus, steps }) {
  await getASlice(visitor, slice, gpus);
  say(`slice ${slice} is ready`);
  await train(visitor, desk, model, slice, steps);
  say(`${model} is trained`);
  await useTheShell(visitor, desk, slice);
  say('a shell was used');
  const pieces = await deployAndChat(visitor, model, `${model}-chat`);
  say(`${model}-chat answered in ${pieces} pieces seen`);
  await seeTheCost(visitor);
}

async function main() {
  const desk = new Desk(), browser = await launch(), visitors = [];
  try {
    const { hosts } = await firstVisit(browser, desk);
    say(`first paint ${figures.first_paint_ms} ms, ${figures.sign_in_bytes} bytes`);
    const ada = await visit(browser, desk.url);
    visitors.push(ada);
    const network = await ada.context.newCDPSession(ada.page);
    let bytes = 0;
    await network.send('Network.enable');
    network.on('Network.loadingFinished', (event) => (bytes += event.encodedDataLength));
    ada.page.on('request', (request) => hosts.add(new URL(request.url()).host));
    const passwords = await desk.has('/session/methods');
    await comeIn(ada, desk, 'ada', passwords);
    await lookAtTheFleet(ada);
    figures.fleet_page_bytes = bytes;
    assert.ok(bytes < 250e3, `the page takes ${bytes} bytes, less than 250 KB`);
    await mainJob(ada, desk, { slice: 'demo', model: 'tiny', gpus: 4, steps: 1500 });
    figures.whole_visit_bytes = bytes;
    await otherPages(ada);
    const operator = await visit(browser, desk.url, { dark: true });
    visitors.push(operator);
    await signInByKey(operator, desk);
    await loseTheController(ada, operator, desk);
    say('the controller was lost and came back');

    const phone = await visit(browser, desk.url, { width: 390, height: 844, dark: true });
    visitors.push(phone);
    await (passwords ? signInByPassword(phone, 'ada') : signInByKey(phone, desk));
    await lookAtTheFleet(phone);
    await mainJob(phone, desk, { slice: 'pocket', model: 'small', gpus: 2, steps: 1000 });
    await otherPages(phone);
    await open(phone.page, 'Slices');
    await press(phone.page, 'Menu');
    await press(phone.page, 'Sign out');
    await heading(phone.page, 'Sign in');

    if (passwords) visitors.push(await byPasskey(browser, desk, 'ada'));
    const gateway = new URL((await desk.api('GET', '/session')).gateway_url).host;
    assert.deepEqual([...hosts].filter((host) => host !== new URL(desk.url).host && host !== gateway), [], 'no other address was asked');
    for (const { problems, width } of visitors) assert.deepEqual(problems, [], `what the page complained about at ${width} px`);
  } catch (error) {
    for (const [i, { page }] of visitors.entries()) {
      const path = `${process.env.TH_BIN}/browser-${i}.png`;
      await page.screenshot({ path, fullPage: true }).then(() => console.log(`what was seen: ${path}, at ${page.url()}`), () => {});
    }
    throw error;
  } finally {
    await browser.close();
    desk.down();
  }
  figures.seconds = Math.round((Date.now() - begun) / 1000);
  console.log(JSON.stringify(figures));
}

await main();
