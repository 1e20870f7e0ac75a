// Debian's Chromium, driven by playwright-core: what a person does, and what axe-core says of what they see.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const kPatience_ms = 60_000;

export async function launch() {
  const path = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
  if (!path) throw new Error("no chromium: 'make install' gets Debian's");
  return chromium.launch({ executablePath: path, args: ['--no-sandbox'] });
}

/** A window of its own, with its own cookies. `problems`: what the page itself complained about. */
export async function visit(browser, url, { width = 1280, height = 860, dark = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? 'dark' : 'light', baseURL: url });
  context.setDefaultTimeout(kPatience_ms);
  const page = await context.newPage(), problems = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && !/Failed to load resource|net::ERR_/.test(message.text()) && problems.push(message.text()));
  return { page, context, problems, width };
}

const label = (text) => (text instanceof RegExp ? text : new RegExp(`^${text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`));
export const fill = (page, field, value) => page.getByLabel(label(field)).fill(value);
export const press = (page, name) => page.getByRole('button', { name: label(name) }).first().click();
export const follow = (page, name) => page.getByRole('link', { name: label(name) }).first().click();
export const heading = (page, name) => page.getByRole('heading', { name: label(name), level: 1 }).waitFor();

/** By the menu, which is behind a button at phone width. */
export async function open(page, name) {
  const nav = page.getByRole('navigation', { name: 'Main' });
  if (!(await nav.isVisible())) await press(page, 'Menu');
  await nav.getByRole('link', { name: label(name) }).click();
}

/** The value of a figure of the page. */
export const figure = async (page, name) => (await page.locator('.stat', { has: page.locator('dt').getByText(name, { exact: true }) }).locator('.value').first().innerText()).trim();

export async function until(what, condition, patience_ms = kPatience_ms) {
  const end = Date.now() + patience_ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${patience_ms / 1000} s in vain for: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** axe-core finds no serious or critical fault, and nothing is wider than the window. */
export async function check(visitor, where) {
  const { page, width } = visitor;
  await page.evaluate(() => new Promise((done) => setTimeout(done, 350)));  // transitions end
  if (!(await page.evaluate(() => !!window.axe))) await page.context().newCDPSession(page).then((cdp) => load(cdp));
  const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const grave = violations.filter((v) => ['serious', 'critical'].includes(v.impact))
    .map((v) => `${v.id}: ${v.help}\n      ${v.nodes.slice(0, 3).map((n) => `${n.html.slice(0, 160)} – ${n.failureSummary?.split('\n')[1] || ''}`).join('\n      ')}`);
  assert.deepEqual(grave, [], `axe-core on ${where} at ${width} px:\n    ${grave.join('\n    ')}`);
  assert.ok(passes.length > 5, `axe-core looked at ${where}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= width, `${where} is ${wide} px wide at ${width} px`);
}

/** axe comes by way of the debugger: the page's own policy lets no foreign script in. */
async function load(cdp) {
  const { readFileSync } = await import('node:fs');
  const { exceptionDetails } = await cdp.send('Runtime.evaluate', { expression: readFileSync(axe, 'utf8') });
  assert.equal(exceptionDetails, undefined);
}
