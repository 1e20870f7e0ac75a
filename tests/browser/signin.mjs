// The other ways in: an invitation by a provider of OpenID Connect (a real one, tests/oidc), and a password that an administrator
// lets somebody set anew. Also what that administrator changes: a tenant's limits, and for whom a slice is.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { check, fill, heading, launch, open, press, until, visit } from './browser.mjs';
import { Desk } from './desk.mjs';

const kPassword = 'correct horse battery staple', kNewPassword = 'a longer sentence than before';

/** A provider that lets everybody in, and the desk's options for it. */
async function provide(desk) {
  const redirect = `${desk.url}/api/v1/session/oidc/callback`;
  const provider = spawn('node', ['provider.mjs'], { cwd: join(process.env.TH_SOURCE, 'tests/oidc'), env: { ...process.env, REDIRECT: redirect }, stdio: ['ignore', 'pipe', 'ignore'] });
  for await (const issuer of createInterface({ input: provider.stdout })) {
    const secret = join(desk.state, 'oidc.secret'), options = join(desk.state, 'oidc.yaml');
    writeFileSync(secret, 'desk-rs256-secret\n', { mode: 0o600 });
    writeFileSync(options, `name: Lab\nissuer: ${issuer}\nclient_id: desk-rs256\nclient_secret_file: ${secret}\nredirect_url: ${redirect}\n`);
    return { provider, options };
  }
  throw new Error('the provider did not start; was `npm ci` run in tests/oidc? make test-browser does it');
}

async function atTheProvider({ page }, login) {
  await page.locator('input[name=login]').fill(login);
  await page.locator('input[name=password]').fill('any');
  await page.locator('button[type=submit]').click();
  const agree = page.getByRole('button', { name: /continue/i }), back = page.getByRole('heading', { name: 'You are signed in' });
  await agree.or(back).first().waitFor();
  if (await agree.isVisible()) await agree.click();
}

const nameShown = ({ page }) => page.getByRole('navigation', { name: 'Main' }).locator('strong').first().innerText();

async function byProvider(visitor, desk) {
  const { page } = visitor, { link } = await desk.api('POST', '/invitations', { tenant: 'default', role: 'member' });
  await page.goto(link);
  await heading(page, 'You are invited');
  await page.getByRole('button', { name: 'Come in with Lab' }).waitFor();
  await check(visitor, 'an invitation with a provider');
  await fill(page, 'Name', 'grace');
  await press(page, 'Come in with Lab');
  await atTheProvider(visitor, 'grace-of-the-lab');
  await page.getByText(/shown this once: [0-9a-f]{64}/).waitFor();
  await page.getByRole('link', { name: 'Go to the console' }).click();
  await heading(page, 'Fleet');
  assert.equal(await nameShown(visitor), 'grace');
  await press(page, 'Sign out');
  await page.getByRole('link', { name: 'Sign in with Lab' }).click();  // known by now; the provider remembers too
  await heading(page, 'Fleet');
  assert.equal(await nameShown(visitor), 'grace');
}

async function signIn({ page }, name, password) {
  await page.goto('/#/');
  await fill(page, 'Name', name);
  await fill(page, 'Password', password);
  await press(page, 'Sign in');
}

async function resetPassword(browser, desk, visitors) {
  const { code } = await desk.api('POST', '/invitations', { tenant: 'default', role: 'member', name: 'ada' });
  const ada = await visit(browser, desk.url), admin = await visit(browser, desk.url), anew = await visit(browser, desk.url, { width: 390, height: 844, dark: true });
  visitors.push(ada, admin, anew);
  await ada.page.goto(`/#/invite/${code}`);
  await fill(ada.page, 'Name', 'ada');
  await fill(ada.page, 'Password', kPassword);
  await press(ada.page, 'Come in');
  await press(ada.page, 'Go to the console');
  await heading(ada.page, 'Fleet');

  const { page } = admin;
  await page.goto('/');
  await press(page, 'Key');
  await fill(page, 'Key', desk.key);
  await press(page, 'Sign in');
  await heading(page, 'Fleet');
  await page.goto('/#/access/people');
  await page.getByRole('row', { name: /^ada / }).getByRole('button', { name: 'Reset password' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Reset password' }).click();
  const link = (await page.locator('[data-secret]').innerText()).trim();
  await check(admin, 'the link of a reset');
  await press(page, 'Close');

  await anew.page.goto(link);
  await heading(anew.page, 'Set a new password');
  await fill(anew.page, 'New password', kNewPassword);
  await fill(anew.page, 'The same again', kPassword);
  await press(anew.page, 'Set it and sign in');
  await anew.page.getByText('These are not the same.').first().waitFor();
  await check(anew, 'a new password');
  await fill(anew.page, 'The same again', kNewPassword);
  await press(anew.page, 'Set it and sign in');
  await heading(anew.page, 'Fleet');
  await ada.page.reload();
  await heading(ada.page, 'Sign in');  // her older session has ended
  await signIn(ada, 'ada', kPassword);
  await ada.page.getByText(/wrong name or password/).first().waitFor();
  await signIn(ada, 'ada', kNewPassword);
  await heading(ada.page, 'Fleet');
  return admin;
}

async function changeLimits(admin, desk) {
  const { page } = admin;
  await desk.api('POST', '/tenants', { name: 'research', parent: '', kind: 'tenant', max_gpus: 8 });
  await page.goto('/#/access/tenants');
  await page.getByRole('row', { name: /^research / }).getByRole('button', { name: 'Limits' }).click();
  assert.equal(await page.getByLabel('GPUs at most').inputValue(), '8');
  await fill(page, 'GPUs at most', '2');
  await fill(page, 'Budget, $', '0.50');
  await check(admin, 'the limits of a tenant');
  await press(page, 'Change');
  await page.getByRole('row', { name: /^research .* 2 \$0\.50/ }).waitFor();
  const limits = async () => (await desk.api('GET', '/tenants')).items.find((t) => t.name === 'research');
  assert.equal((await limits()).budget_microusd, 500000);
  await page.getByRole('row', { name: /^research / }).getByRole('button', { name: 'Limits' }).click();
  await fill(page, 'Budget, $', '');
  await press(page, 'Change');
  await until('the budget to be taken away', async () => !(await limits()).budget_microusd);

  await page.goto('/#/slices/new');
  await fill(page, 'Name', 'theirs');
  await fill(page, 'GPUs', '1');
  await page.getByLabel('Paid by').selectOption('research');
  await press(page, 'Get an offer');
  await press(page, 'Commit: get it now');
  await heading(page, 'theirs');
  assert.equal((await desk.api('GET', '/slices/theirs')).account, 'research');
}

async function main() {
  const desk = new Desk(), browser = await launch(), visitors = [];
  let provider = null;
  try {
    const started = await provide(desk);
    provider = started.provider;
    desk.kill();
    desk.restart('--oidc', started.options);
    visitors.push(await visit(browser, desk.url));
    await byProvider(visitors[0], desk);
    console.log('in by a provider');
    const admin = await resetPassword(browser, desk, visitors);
    console.log('a password was set anew');
    await changeLimits(admin, desk);
    for (const { problems } of visitors) assert.deepEqual(problems, [], 'what a page complained about');
  } catch (error) {
    for (const [i, { page }] of visitors.entries()) {
      const path = `${process.env.TH_BIN}/browser-signin-${i}.png`;
      await page.screenshot({ path, fullPage: true }).then(() => console.log(`what was seen: ${path}, at ${page.url()}`), () => {});
    }
    throw error;
  } finally {
    provider?.kill();
    await browser.close();
    desk.down();
  }
}

await main();
