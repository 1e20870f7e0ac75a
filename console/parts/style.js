// Style sheets of packages that only some pages need.

const here = new URL('..', import.meta.url), loading = {};

export function loadStyle(name) {
  loading[name] ||= new Promise((done, failed) => {
    const link = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: new URL(name, here) });
    link.onload = done;
    link.onerror = () => ((loading[name] = null), link.remove(), failed(new Error(`${name} could not be loaded; try again.`)));
    document.head.append(link);
  });
  return loading[name];
}
