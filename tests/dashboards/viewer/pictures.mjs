// Serves the viewer on a free port of loopback, opens every board in Chromium and writes a PNG of each.
//
//   node pictures.mjs --prometheus http://127.0.0.1:9090 [--loki http://127.0.0.1:3100] --boards DIR --out DIR
//     [--chromium FILE] [--query STRING]
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import sharp from 'sharp';

const here = path.dirname(new URL(import.meta.url).pathname);
const { values: chosen } = parseArgs({
  options: {
    prometheus: { type: 'string' },
    loki: { type: 'string' },
    boards: { type: 'string' },
    out: { type: 'string' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
    query: { type: 'string', default: 'from=now-15m&to=now' },
  },
});
const WIDTH = 1600;
const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.json': 'application/json' };
const PAGE = `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/bundle/viewer.css">
<script>window.__grafana_public_path__ = '/public/'; window.process = { env: {} };
window.hasLoki = ${Boolean(chosen.loki)};
window.grafanaBootData = { settings: {}, user: {}, navTree: [] };</script>
<style>body { margin: 0; font-family: Inter, Helvetica, Arial, sans-serif; }</style>
<div id="root"></div><script type="module" src="/bundle/viewer.js"></script>`;

const FOLDERS = {
  bundle: path.join(here, 'bundle'),
  boards: path.resolve(chosen.boards),
  public: path.join(here, 'node_modules/@grafana/ui/dist/public'),
};

async function answer(request, response) {
  const { pathname, search } = new URL(request.url, 'http://127.0.0.1');
  const [, first, ...rest] = pathname.split('/');
  const servers = { prometheus: chosen.prometheus, loki: `${chosen.loki}/loki` };
  if (servers[first]) {
    const asked = await fetch(`${servers[first]}/${rest.join('/')}${search}`);
    response.writeHead(asked.status, { 'content-type': 'application/json' }).end(Buffer.from(await asked.arrayBuffer()));
  } else if (first === 'd') {
    response.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
  } else {
    const file = FOLDERS[first] && path.join(FOLDERS[first], path.normalize(`/${rest.join('/')}`));
    if (!file || !fs.existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    const type = TYPES[path.extname(file)] ?? 'application/octet-stream';
    response.writeHead(200, { 'content-type': type });
    fs.createReadStream(file).pipe(response);
  }
}

/** A screenshot down to the last panel. On a busy machine panels are drawn late: two in a row have to be the same. */
async function still(page) {
  let last = Buffer.alloc(0);
  for (let tries = 0; tries < 15; tries++) {
    await page.waitForTimeout(3000);
    const height = await page.evaluate(() =>
      Math.max(...Array.from(document.querySelectorAll('.react-grid-item'), (each) => each.getBoundingClientRect().bottom))
    );
    const shot = await page.screenshot({ clip: { x: 0, y: 0, width: WIDTH, height: Math.ceil(height) + 12 } });
    if (shot.equals(last)) {
      return shot;
    }
    last = shot;
  }
  throw new Error('the panels go on changing');
}

/** The picture of a board whose panels have all been drawn; fails where a question was refused. */
async function picture(browser, address, uid) {
  const page = await browser.newPage({ viewport: { width: WIDTH, height: 1000 } });
  const broken = [];
  page.on('pageerror', (error) => broken.push(error.message));
  await page.goto(`${address}/d/${uid}?${chosen.query}`);
  await page.waitForFunction(() => window.report?.board);
  const height = await page.evaluate(() => Math.max(...window.report.board.panels.map((p) => p.gridPos.y + p.gridPos.h)));
  // Grafana draws what is in view: make room for all of it, then wait until nothing is being asked.
  await page.setViewportSize({ width: WIDTH, height: height * 38 + 160 });
  await page.waitForLoadState('networkidle');
  const shot = await still(page);
  const crashed = await page.getByText('An unexpected error happened').count();
  const errors = [...broken, ...(await page.evaluate(() => window.report.errors))];
  if (crashed) {
    errors.push(`${crashed} panels could not be drawn`);
  }
  if (errors.length) {
    throw new Error(`${uid}: ${errors.join('; ')}`);
  }
  const file = path.join(chosen.out, `${uid}.png`);
  // 128 colours are enough for a board and a third of the size.
  const { size } = await sharp(shot).png({ palette: true, colours: 128, effort: 9 }).toFile(file);
  console.log(`${file}: ${Math.round(size / 1000)} kB`);
  await page.close();
}

const server = http.createServer((request, response) =>
  answer(request, response).catch((error) => response.writeHead(502).end(String(error)))
);
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const browser = await chromium.launch({
  executablePath: chosen.chromium,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync', '--no-proxy-server'],
});
try {
  fs.mkdirSync(chosen.out, { recursive: true });
  for (const name of fs.readdirSync(FOLDERS.boards).filter((each) => each.endsWith('.json')).sort()) {
    await picture(browser, `http://127.0.0.1:${server.address().port}`, name.replace('.json', ''));
  }
} finally {
  await browser.close();
  server.close();
  server.closeAllConnections();
}
