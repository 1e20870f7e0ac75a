// Numbers and times as people read them. Times of the API are nanoseconds since 1970, money micro-dollars.

/** The controller's time: the twin's is virtual, and known by the last event. */
export const time = { now: () => Date.now() };

const number = new Intl.NumberFormat('en-US', { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 });

export const ms = (ns) => Number(ns) / 1e6;
export const count = (n) => (n == null ? '–' : number.format(n));
export const short = (n) => (n == null ? '–' : Math.abs(n) < 10000 ? number.format(n) : compact.format(n));
export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;
export const percent = (share, digits = 0) => (Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : '–');

export function money(microusd) {
  if (microusd == null) return '–';
  const dollars = microusd / 1e6;
  if (dollars > 0 && dollars < 0.0001) return '< $0.0001';
  const digits = dollars !== 0 && Math.abs(dollars) < 0.1 ? 4 : 2;
  return dollars.toLocaleString('en-US', { style: 'currency', currency: 'USD', minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function bytes(n) {
  if (n == null) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) (n /= 1024), unit++;
  return `${unit && n < 100 ? number.format(n) : Math.round(n)} ${units[unit]}`;
}

/** With so many digits; large ones short. */
export const decimal = (n, digits) => (Math.abs(n) >= 10000 ? compact.format(n) : n.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits }));

export function watts(w) {
  return w >= 1e6 ? `${(w / 1e6).toFixed(1)} MW` : w >= 1e4 ? `${(w / 1e3).toFixed(0)} kW` : `${number.format(w)} W`;
}

/** Its two largest units, or so many. */
export function duration(ns, most = 2) {
  let s = Math.round(Number(ns) / 1e9);
  if (!Number.isFinite(s)) return '–';
  if (s === 0 && Number(ns) > 0) return '< 1 s';
  if (Math.abs(s) < 60) return `${s} s`;
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']], out = [];
  for (const [size, unit] of parts) {
    const n = Math.floor(s / size);
    s -= n * size;
    if (n) out.push(`${n} ${unit}`);
    if (out.length === most) break;
  }
  return out.join(' ');
}

const pad = (n) => String(n).padStart(2, '0');
export function clock(ns) {
  const d = new Date(ms(ns));
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}
/** "14:03", "tomorrow 14:03", "3 Dec 14:03". */
export function when(ns, now_ms = time.now()) {
  if (!ns) return '–';
  const d = new Date(ms(ns)), today = new Date(now_ms);
  const days = Math.round((new Date(d).setHours(0, 0, 0, 0) - new Date(today).setHours(0, 0, 0, 0)) / 86400e3);
  const time = `${pad(d.getHours())}:${pad(d.getMinutes())}`;
  if (days === 0) return time;
  if (days === 1) return `tomorrow ${time}`;
  if (days === -1) return `yesterday ${time}`;
  return `${d.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${time}`;
}
/** "in 5 min", "3 s ago". */
export function relative(ns, now_ms = time.now()) {
  if (!ns) return '–';
  const apart = ms(ns) - now_ms;
  return apart > 500 ? `in ${duration(apart * 1e6)}` : apart < -1500 ? `${duration(-apart * 1e6, 1)} ago` : 'now';
}

/** A text of the controller, with its times as the reader's clock shows them. */
export const told = (text) => text?.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, (stamp) => when(Date.parse(stamp) * 1e6)) ?? '';

/** "90s", "1h30m", "2 d" → nanoseconds; NaN if it is no duration. */
export function parseDuration(text) {
  const units = { s: 1, sec: 1, m: 60, min: 60, h: 3600, d: 86400 };
  const words = [...text.trim().toLowerCase().matchAll(/(\d+(?:\.\d+)?)\s*(s|sec|min|m|h|d)\s*/g)];
  if (!words.length || words.map((w) => w[0]).join('') !== text.trim().toLowerCase()) return NaN;
  return words.reduce((sum, [, n, unit]) => sum + Number(n) * units[unit], 0) * 1e9;
}
