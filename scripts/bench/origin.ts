/**
 * Hosts that ask their nodes, all at once, for a model that nobody has: from the first request to the last byte at the last host, beside
 * what one host takes alone, which the Hub's rate decides. The Hub is the one of the tests, in this process, so many bytes a second for each file; four are
 * fetched at a time.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { spawn, execFileSync, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { MiB } from '../../src/base/index.ts'
import { Hub } from '../../test/support/hub.ts'
import { median, spread, type Row } from './lib.ts'

interface Init { directory: string, bytes: number, files: number, hosts: number, fileBytesPerSecond: number, rounds: number, log: (line: string) => void }

const BIN = new URL('../../src/cli/bin.js', import.meta.url).pathname
const AT_ONCE = 8

export async function benchOrigin (init: Init): Promise<Row[]> {
  const { bytes, hosts, rounds, log } = init
  const runs: Array<{ all: number, first: number, alone: number, copies: number }> = []
  for (let round = 0; round < rounds; round++) {
    const alone = await run(init, 1, join(init.directory, `${round}-alone`))
    const all = await run(init, hosts, join(init.directory, `${round}-all`))
    runs.push({ all: all.seconds, first: all.firstSeconds, alone: alone.seconds, copies: all.copies })
    log(`origin round ${round + 1}: ${hosts} hosts ${all.seconds.toFixed(1)} s, the first file ${all.firstSeconds.toFixed(1)} s, ${all.copies.toFixed(3)} copies from the Hub; one alone ${alone.seconds.toFixed(1)} s`)
  }
  const ratio = median(runs.map(({ all, alone }) => all / alone))
  const copies = median(runs.map(run => run.copies))
  return [
    { what: `${hosts} hosts ask for ${bytes / MiB} MiB in ${init.files} files that nobody has`, figure: `${spread(runs.map(({ all }) => all), 1)} s`, beside: `one host alone ${spread(runs.map(({ alone }) => alone), 1)} s`, ratio: ratio.toFixed(2), mustReach: '', reached: undefined },
    { what: 'its first small file, at the last host', figure: `${spread(runs.map(({ first }) => first), 1)} s`, beside: 'all of it, above', ratio: '', mustReach: '', reached: undefined },
    { what: 'copies that left the Hub', figure: copies.toFixed(3), beside: '', ratio: '', mustReach: '1.05', reached: copies <= 1.05 }
  ]
}

async function run ({ bytes, files, fileBytesPerSecond }: Init, hosts: number, directory: string): Promise<{ seconds: number, firstSeconds: number, copies: number }> {
  await using hub = await Hub.start()
  const size = Math.floor(bytes / files)
  const content = Object.fromEntries(Array.from({ length: files }, (_, at) => [`model-${String(at + 1).padStart(5, '0')}.safetensors`, randomBytes(size)]))
  hub.push('bench/model', { 'config.json': Buffer.from('{}'), ...content })
  hub.faults.bytesPerSecond = fileBytesPerSecond
  const children: ChildProcess[] = []
  try {
    const urls: string[] = []
    let invite: string | undefined
    for (let host = 0; host < hosts; host++) {
      const data = join(directory, `host-${host}`)
      const child = spawn(process.execPath, [
        BIN, '--data', data, '--json', 'daemon', '--listen', '/ip4/127.0.0.1/tcp/0', '--set', 'hf.listen=127.0.0.1:0', '--set', `hf.upstream=${hub.url}`, ...['min', 'target', 'max'].flatMap(key => ['--set', `replication.${key}=0`]),
        ...invite === undefined ? [] : ['--join', invite]
      ], { stdio: ['ignore', 'pipe', 'inherit'] })
      children.push(child)
      const [line] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => { throw new Error('a daemon did not start') })]) as [Buffer]
      urls.push((JSON.parse(line.toString()) as { hf: string }).hf)
      invite ??= execFileSync(process.execPath, [BIN, '--data', data, 'invite'], { encoding: 'utf8' }).trim()
    }
    const began = performance.now()
    let first = began
    await Promise.all(urls.map(async url => {
      await download(`${url}/bench/model/resolve/main`, ['config.json', ...Object.keys(content)], path => { if (path === 'config.json') first = performance.now() })
    }))
    return { seconds: (performance.now() - began) / 1_000, firstSeconds: (first - began) / 1_000, copies: hub.bytes / bytes }
  } finally {
    for (const child of children) child.kill()
    await Promise.all(children.map(async child => { if (child.exitCode === null && child.signalCode === null) await once(child, 'exit') }))
  }
}

/** As clients do: some files at a time. */
async function download (url: string, paths: readonly string[], done: (path: string) => void): Promise<void> {
  const queue = paths.values()
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (const path of queue) {
      const answer = await fetch(`${url}/${path}`)
      if (answer.status !== 200 || answer.body === null) throw new Error(`${path}: ${answer.status}`)
      for await (const _ of answer.body);
      done(path)
    }
  }))
}
