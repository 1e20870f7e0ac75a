// Line icons, 24 by 24, of our own drawing.

import { html } from './core.js';

const paths = {
  fleet: 'M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z',
  slices: 'M12 3 3.5 7.5 12 12l8.5-4.5zM3.5 12 12 16.5 20.5 12M3.5 16.5 12 21l8.5-4.5',
  jobs: 'M4 6h16M4 12h16M4 18h10M18 15.5l3 2.5-3 2.5z',
  models: 'M12 3.5 19.5 8v8L12 20.5 4.5 16V8zM12 12l7-4M12 12v8M12 12 5 8',
  playground: 'M4 5h16v11H10l-4 3.5V16H4zM8 9h8M8 12h5',
  usage: 'M4 20V10M10 20V4M16 20v-7M21 20H3',
  twin: 'M9 6a5 5 0 1 0 0 10M15 8a5 5 0 1 1 0 10M9 12h6',
  access: 'M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20c1-3.5 4-5 7.5-5s6.500 1.500 7.500 5',
  out: 'M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9',
  menu: 'M4 7h16M4 12h16M4 17h16',
};
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${paths[name]} /></svg>`;

export const Mark = () => html`<svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8" fill="#3d4bd0" />
  <path d="M10.2 18.5a4.6 4.6 0 0 1 .5-9.1 6.2 6.2 0 0 1 11.7 1.9 3.7 3.7 0 0 1 .3 7.2" fill="none" stroke="#fff" stroke-width="2.2" stroke-linecap="round" />
  <path d="m17.4 13.6-4.2 6.1h4.4l-2.6 6.2 6.4-8.1h-4.3l2.200-4.200z" fill="#ffd15c" /></svg>`;
