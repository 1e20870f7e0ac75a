#!/usr/bin/env python3
"""Makes console_assets.cc: the files of the console, as they are and compressed by gzip, for src/control/console.h.

Names are those of the URL below /console/VERSION/, where VERSION comes of all contents: a file of a version never changes.
In index.html "@VERSION@" stands for it."""

import argparse
import gzip
import hashlib
from pathlib import Path

NPM = {
    "npm/htm.js": "htm/preact/standalone.module.js",
    "npm/uplot.js": "uplot/dist/uPlot.iife.min.js",
    "npm/uplot.css": "uplot/dist/uPlot.min.css",
    "npm/pico.css": "@picocss/pico/css/pico.min.css",
    "npm/xterm.js": "@xterm/xterm/lib/xterm.mjs",
    "npm/xterm.css": "@xterm/xterm/css/xterm.css",
    "npm/xterm_fit.js": "@xterm/addon-fit/lib/addon-fit.mjs",
}
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".svg": "image/svg+xml", ".yaml": "text/plain; charset=utf-8"}


def incbin(label, path):
    return f'__asm__(".section .rodata\\n{label}: .incbin \\"{path}\\"\\n.previous");\nextern "C" const char {label}[];\n'


def main():
    parser = argparse.ArgumentParser()
    for name in ("console", "npm", "recipes", "out"):
        parser.add_argument("--" + name, type=Path, required=True)
    args = parser.parse_args()
    files = {p.relative_to(args.console).as_posix(): p.read_bytes()
             for p in sorted(args.console.rglob("*")) if p.suffix in TYPES and "node_modules" not in p.parts}
    files |= {name: (args.npm / path).read_bytes() for name, path in NPM.items()}
    files |= {f"recipes/{p.name}": p.read_bytes() for p in sorted(args.recipes.glob("*.yaml"))}
    version = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:12]
    files["index.html"] = files["index.html"].replace(b"@VERSION@", version.encode())

    folder = args.out / "embedded"
    folder.mkdir(exist_ok=True)
    code, rows = "", ""
    for number, (name, data) in enumerate(sorted(files.items())):
        packed = gzip.compress(data, 9, mtime=0)
        for kind, content in (("plain", data), ("gzip", packed)):
            path = folder / f"{number}.{kind}"
            path.write_bytes(content)
            code += incbin(f"th_console_{kind}_{number}", path)
        rows += (f'    {{"{name}", "{TYPES[Path(name).suffix]}", {{th_console_plain_{number}, {len(data)}}}, '
                 f'{{th_console_gzip_{number}, {len(packed)}}}}},\n')
    (args.out / "console_assets.cc").write_text(
        '#include "control/console.h"\n\n' + code + "\nnamespace th::control {\n"
        f'namespace {{\nconst ConsoleAsset kAssets[] = {{\n{rows}}};\n}}\n'
        "std::span<const ConsoleAsset> console_assets() { return kAssets; }\n"
        f'std::string_view console_version() {{ return "{version}"; }}\n}}  // namespace th::control\n')


if __name__ == "__main__":
    main()
