/** The endpoint for Hugging Face clients, beside nginx with the same file: both on loopback, both read by curl, in turns. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { median, quantile, spread, type Row } from './lib.ts'

interface Init { directory: string, bytes: number, rounds: number, log: (line: string) => void }

const BIN = new URL('../../src/cli/bin.js', import.meta.url).pathname
const FIRST_BYTES = 200

export async function benchHf ({ directory, bytes, rounds, log }: Init): Promise<Row[]> {
  const source = join(directory, 'model')
  await writeSyntheticModel(source, { bytes, seed: 6, shards: 1 })
  const file = (await readdir(source)).find(name => name.endsWith('.safetensors')) ?? ''
  const data = join(directory, 'node')
  const daemon = spawn(process.execPath, [BIN, '--data', data, '--json', 'daemon', '--listen', '/ip4/127.0.0.1/tcp/0', '--set', 'hf.listen=127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let nginx: ChildProcess | undefined
  try {
    const [line] = await once(daemon.stdout, 'data') as [Buffer]
    const { hf } = JSON.parse(line.toString()) as { hf: string }
    const { cid } = JSON.parse(execFileSync(process.execPath, [BIN, '--data', data, '--json', 'add', source, '--replicas', '0', '--quiet'], { encoding: 'utf8' })) as { cid: string }
    const own = `${hf}/cid/${cid}/resolve/main/${file}`
    const { url, process: started } = await startNginx(directory, `${source}/${file}`)
    nginx = started
    const first = curl(own, '%{time_starttransfer}', FIRST_BYTES, ['-r', '0-65535']).map(seconds => seconds * 1000)
    const rates: Array<{ own: number, nginx: number }> = []
    curl(own, '%{speed_download}', 1)
    curl(url, '%{speed_download}', 1)
    for (let i = 0; i < rounds; i++) {
      const [nginxRate = 0] = curl(url, '%{speed_download}', 1)
      const [ownRate = 0] = curl(own, '%{speed_download}', 1)
      rates.push({ own: ownRate / 2 ** 30, nginx: nginxRate / 2 ** 30 })
      log(`hf round ${i + 1}: ${(ownRate / 2 ** 30).toFixed(2)} GiB/s, nginx ${(nginxRate / 2 ** 30).toFixed(2)}`)
    }
    const ratio = median(rates.map(rate => rate.own / rate.nginx))
    const p50 = quantile(first, 0.5)
    return [
      { what: 'first byte through the Hugging Face endpoint, local model, p50', figure: `${p50.toFixed(1)} ms`, beside: `p99 ${quantile(first, 0.99).toFixed(1)} ms`, ratio: '', mustReach: '<= 5 ms', reached: p50 <= 5 },
      {
        what: 'GET of a complete local file', figure: `${spread(rates.map(rate => rate.own))} GiB/s`, beside: `nginx ${spread(rates.map(rate => rate.nginx))} GiB/s`,
        ratio: ratio.toFixed(2), mustReach: '0.8', reached: ratio >= 0.8
      }
    ]
  } finally {
    for (const child of [daemon, nginx]) {
      if (child === undefined) continue
      child.kill()
      if (child.exitCode === null) await once(child, 'exit')
    }
  }
}

/** One curl for each, each with a connection of its own. */
function curl (url: string, what: string, times: number, more: string[] = []): number[] {
  return Array.from({ length: times }, () => Number(execFileSync('curl', ['-sS', '--fail', '-o', '/dev/null', '-w', what, ...more, url], { encoding: 'utf8' })))
}

export async function freePort (): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  probe.close()
  await once(probe, 'close')
  return port
}

async function startNginx (directory: string, path: string): Promise<{ url: string, process: ChildProcess }> {
  const port = await freePort()
  const home = join(directory, 'nginx')
  await mkdir(home)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `${name}_temp_path ${home};`).join(' ')
  await writeFile(join(home, 'nginx.conf'), `${process.getuid?.() === 0 ? 'user root; ' : ''}worker_processes 1; daemon off; pid ${home}/pid; error_log ${home}/error.log;
events {}
http { access_log off; sendfile on; tcp_nopush on; ${temporary} server { listen 127.0.0.1:${port}; root ${dirname(path)}; } }
`)
  const child = spawn('nginx', ['-c', join(home, 'nginx.conf'), '-e', join(home, 'error.log')], { stdio: 'inherit' })
  const url = `http://127.0.0.1:${port}/${basename(path)}`
  for (let attempt = 0; ; attempt++) {
    try {
      execFileSync('curl', ['-sS', '--fail', '-o', '/dev/null', '-r', '0-0', url], { stdio: 'ignore' })
      return { url, process: child }
    } catch (error) {
      if (attempt === 50) {
        child.kill()
        throw error
      }
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}
