// Bundles the viewer into bundle/. Grafana's libraries come as .mjs, for which bundlers read the default export of a
// CommonJS package as Node does; they are written for the other reading, so they are copied as .js first.
import * as esbuild from 'esbuild';
import fs from 'node:fs';
import path from 'node:path';

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const modules = path.join(here, 'node_modules');
const LIBRARIES = ['ui', 'data', 'runtime', 'schema', 'e2e-selectors'];

function copyAsJs(from, to) {
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    const source = path.join(from, entry.name);
    if (entry.isDirectory()) {
      copyAsJs(source, path.join(to, entry.name));
    } else if (/\.m?js$/.test(entry.name)) {
      fs.mkdirSync(to, { recursive: true });
      const text = fs.readFileSync(source, 'utf8').replace(/(['"])(\.{1,2}\/[^'"]*)\.mjs\1/g, '$1$2.js$1');
      fs.writeFileSync(path.join(to, entry.name.replace(/\.mjs$/, '.js')), text);
    }
  }
}

const libraries = {
  name: 'libraries',
  setup(build) {
    build.onResolve({ filter: /^@grafana\/(ui|data|runtime|schema|e2e-selectors)$/ }, (asked) => ({
      path: path.join(modules, asked.path, 'dist/js/index.js'),
    }));
    // Types of panels the boards do not use, and editors nobody opens.
    build.onResolve({ filter: /^@grafana\/schema\/dist\/esm\/raw\// }, (asked) => {
      const file = path.join(modules, `${asked.path}.mjs`);
      return fs.existsSync(file) ? { path: file } : { path: asked.path, namespace: 'unused' };
    });
    build.onResolve({ filter: /^(monaco-editor.*|ol(\/.*)?)$/ }, (asked) => ({ path: asked.path, namespace: 'unused' }));
    build.onLoad({ filter: /.*/, namespace: 'unused' }, () => ({
      contents: 'module.exports = { defaultOptions: {}, defaultFieldConfig: {} };',
    }));
  },
};

for (const name of LIBRARIES) {
  copyAsJs(path.join(modules, '@grafana', name, 'dist/esm'), path.join(modules, '@grafana', name, 'dist/js'));
}
await esbuild.build({
  entryPoints: [path.join(here, 'viewer.tsx')],
  outdir: path.join(here, 'bundle'),
  bundle: true,
  splitting: true,
  format: 'esm',
  jsx: 'automatic',
  logLevel: 'error',
  mainFields: ['browser', 'module', 'main'],
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { '.svg': 'dataurl', '.woff2': 'dataurl', '.png': 'dataurl', '.gif': 'dataurl' },
  plugins: [libraries],
});
