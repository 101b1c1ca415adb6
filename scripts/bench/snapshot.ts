/**
 * `snapshot_download` of a sharded model by the real huggingface_hub: from a node that has nothing of it and loads it from two
 * others, and from nginx with the same files and answers, in turns. All on this machine; the clock runs in the client, from the call
 * to its return.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB } from '../../src/base/index.ts'
import { freePort } from './hf.ts'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { median, spread, type Row } from './lib.ts'

interface Init { directory: string, bytes: number, rounds: number, log: (line: string) => void }

const BIN = new URL('../../src/cli/bin.js', import.meta.url).pathname
const REPO = 'bench/model'
const CLIENT = `
import os, sys, time
from huggingface_hub import snapshot_download
began = time.monotonic()
snapshot_download(sys.argv[1])
print(time.monotonic() - began)
`

export async function benchSnapshot ({ directory, bytes, rounds, log }: Init): Promise<Row[]> {
  const python = process.env.SHOAL_BENCH_PYTHON ?? 'python3'
  const what = `snapshot_download of ${(bytes / GiB).toFixed(1)} GiB from a swarm, cold`
  try {
    execFileSync(python, ['-c', 'import huggingface_hub'], { stdio: 'ignore' })
    execFileSync('nginx', ['-v'], { stdio: 'ignore' })
  } catch {
    return [{ what, figure: 'not measured', beside: 'huggingface_hub (SHOAL_BENCH_PYTHON) or nginx is absent', ratio: '', mustReach: '1', reached: undefined }]
  }
  const source = join(directory, 'model')
  await writeSyntheticModel(source, { bytes, seed: 9 })
  const children: ChildProcess[] = []
  const daemon = async (name: string, ...more: string[]): Promise<{ hf?: string, child: ChildProcess }> => {
    const child = spawn(process.execPath, [BIN, '--data', join(directory, name), '--json', 'daemon', '--listen', '/ip4/127.0.0.1/tcp/0', ...more], { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    const [line] = await once(child.stdout, 'data') as [Buffer]
    return { ...JSON.parse(line.toString()) as { hf?: string }, child }
  }
  const cli = (name: string, ...args: string[]): string => execFileSync(process.execPath, [BIN, '--data', join(directory, name), ...args], { encoding: 'utf8' }).trim()
  try {
    await daemon('one')
    const cid = cli('one', 'add', source, '--replicas', '0', '--quiet')
    const invite = cli('one', 'invite')
    await daemon('two', '--join', invite)
    cli('two', 'get', cid, '--quiet')
    const origin = await daemon('answers', '--join', invite, '--set', 'hf.listen=127.0.0.1:0')
    const nginx = await startNginx(directory, { source, endpoint: origin.hf ?? '', cid })
    children.push(nginx.child)
    const seconds: Array<{ own: number, nginx: number }> = []
    const loader = await daemon('loader', '--join', invite, '--set', 'hf.listen=127.0.0.1:0')
    cli('loader', 'link', REPO, cid)
    for (let round = 0; round < rounds; round++) {
      for (const name of await readdir(source)) execFileSync('cp', [join(source, name), '/dev/null'])
      const fromNginx = await download(python, nginx.url, directory)
      const own = await download(python, loader.hf ?? '', directory)
      cli('loader', 'rm', cid)
      seconds.push({ own, nginx: fromNginx })
      log(`snapshot round ${round + 1}: ${own.toFixed(2)} s, nginx ${fromNginx.toFixed(2)} s`)
    }
    const ratio = median(seconds.map(({ own, nginx }) => nginx / own))
    return [{ what, figure: `${spread(seconds.map(({ own }) => own), 1)} s`, beside: `nginx ${spread(seconds.map(({ nginx }) => nginx), 1)} s`, ratio: ratio.toFixed(2), mustReach: '1', reached: ratio >= 1 }]
  } finally {
    await Promise.all(children.map(end))
  }
}

async function end (child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill()
  await once(child, 'exit')
}

async function download (python: string, endpoint: string, directory: string): Promise<number> {
  const home = join(directory, 'hf-home')
  const child = spawn(python, ['-c', CLIENT, REPO], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, HF_HOME: home, HF_ENDPOINT: endpoint, HF_HUB_DISABLE_PROGRESS_BARS: '1', HF_HUB_DISABLE_TELEMETRY: '1', HF_HUB_DISABLE_XET: '1' } })
  let out = ''
  child.stdout.on('data', data => { out += String(data) })
  const [code] = await once(child, 'exit') as [number]
  await rm(home, { recursive: true, force: true })
  if (code !== 0) throw new Error(`snapshot_download from ${endpoint} ended with ${code}`)
  return Number(out)
}

/** The same answers as the node's own endpoint gives, and the same files. */
async function startNginx (directory: string, { source, endpoint, cid }: { source: string, endpoint: string, cid: string }): Promise<{ url: string, child: ChildProcess }> {
  const home = join(directory, 'nginx')
  const api = join(home, 'api/models', REPO)
  for (const kind of ['revision', 'tree']) await mkdir(join(api, kind), { recursive: true })
  const described = await (await fetch(`${endpoint}/api/models/cid/${cid}/revision/main`)).json() as { sha: string, siblings: Array<{ rfilename: string }> }
  const answer = JSON.stringify({ ...described, id: REPO, modelId: REPO })
  const tree = await (await fetch(`${endpoint}/api/models/cid/${cid}/tree/main?recursive=true`)).text()
  for (const revision of ['main', described.sha]) {
    await writeFile(join(api, 'revision', `${revision}.json`), answer)
    await writeFile(join(api, 'tree', `${revision}.json`), tree)
  }
  const etags: string[] = []
  for (const { rfilename } of described.siblings) {
    const { headers } = await fetch(`${endpoint}/cid/${cid}/resolve/main/${rfilename}`, { method: 'HEAD' })
    etags.push(`"~/${rfilename.replaceAll('.', '\\.')}$" '${headers.get('etag') ?? ''}';`)
  }
  const port = await freePort()
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `${name}_temp_path ${home};`).join(' ')
  await writeFile(join(home, 'nginx.conf'), `${process.getuid?.() === 0 ? 'user root; ' : ''}worker_processes 2; daemon off; pid ${home}/pid; error_log ${home}/error.log;
events {}
http {
  access_log off; sendfile on; tcp_nopush on; etag off; ${temporary}
  map $uri $file_etag { ${etags.join(' ')} }
  server {
    listen 127.0.0.1:${port}; root ${home};
    location /api/ { default_type application/json; try_files $uri.json =404; }
    location ~ ^/${REPO}/resolve/[^/]+/(.+)$ { alias ${source}/$1; add_header X-Repo-Commit ${described.sha}; add_header ETag $file_etag; }
  }
}
`)
  const child = spawn('nginx', ['-c', join(home, 'nginx.conf'), '-e', join(home, 'error.log')], { stdio: 'inherit' })
  const url = `http://127.0.0.1:${port}`
  for (let attempt = 0; ; attempt++) {
    if (await fetch(`${url}/api/models/${REPO}/revision/main`).then(({ ok }) => ok, () => false)) return { url, child }
    if (attempt === 50) throw new Error(`nginx does not answer as it should (${api})`)
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}
