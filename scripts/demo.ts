/**
 * The main job on real input: `npm run demo`, `npm run demo -- --size 4GiB` or `npm run demo -- DIR`. Five node processes in a private
 * swarm on loopback; one adds a model, two load it, two more load it while the first is killed with SIGKILL. Everything
 * happens through the program a user has: daemons, and their API. Leaves nothing behind.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, readdir, rm, stat, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { MultiBar, type SingleBar } from 'cli-progress'
import Table from 'cli-table3'
import { ApiClient } from '../src/api/client.ts'
import { GiB, asError } from '../src/base/index.ts'
import { size as sizeText } from '../src/cli/format.ts'
import { parseSize } from '../src/cli/units.ts'
import type { LoadResult } from '../src/node/types.ts'
import { writeSyntheticModel } from './lib/synthetic-model.ts'

const BIN = fileURLToPath(new URL('../src/cli/bin.js', import.meta.url))
/** Nodes 4 and 5 have this much when node 1 is killed. */
const KILL_AT = 0.25

const { values, positionals } = parseArgs({ allowPositionals: true, options: { size: { type: 'string' }, seed: { type: 'string', default: '1' } } })
if (positionals.length > 1 || (positionals.length === 1 && values.size !== undefined)) {
  console.error('usage: npm run demo -- [DIR | --size 1GiB] [--seed 1]')
  process.exit(2)
}
const stopping = new AbortController()
const { signal } = stopping
// Every time, so that a second one does not end the demo before its nodes.
for (const [name, what] of [['SIGINT', 'interrupted'], ['SIGTERM', 'terminated'], ['SIGHUP', 'hung up']] as const) {
  process.on(name, () => { stopping.abort(new Error(what)) })
}

class DemoNode {
  readonly name: string
  readonly child: ChildProcess
  readonly client: ApiClient
  peerId = ''
  stderr = ''

  private constructor (name: string, data: string, join?: string) {
    this.name = name
    this.client = new ApiClient({ socketPath: `${data}/api.sock` })
    this.child = spawn(process.execPath, [BIN, '--data', data, '--json', 'daemon', '--listen', '/ip4/127.0.0.1/tcp/0'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // A terminal's Ctrl-C is for the demo, which then stops its nodes in order.
      detached: true,
      env: { ...process.env, ...(join === undefined ? {} : { SHOAL_JOIN: join }) }
    })
    this.child.stderr?.on('data', data => { this.stderr = (this.stderr + String(data)).slice(-4000) })
  }

  static async start (name: string, data: string, join?: string): Promise<DemoNode> {
    const node = new DemoNode(name, data, join)
    nodes.push(node)
    const line = await new Promise<string>((resolve, reject) => {
      node.child.stdout?.once('data', data => { resolve(String(data)) })
      node.child.once('exit', code => { reject(new Error(`${name} ended with ${code} before it was ready: ${node.stderr}`)) })
    })
    node.peerId = (JSON.parse(line) as { peerId: string }).peerId
    return node
  }

  async end (signalName: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const gone = new Promise(resolve => this.child.once('exit', resolve))
    this.child.kill(signalName)
    await gone
  }
}

/** Bars on a terminal, a line now and then elsewhere. */
class Screen {
  readonly #bars = process.stderr.isTTY
    ? new MultiBar({ format: '  {name} [{bar}] {percentage} % {note}', hideCursor: true, clearOnComplete: false, fps: 10, barsize: 30 }, { barCompleteChar: '=', barIncompleteChar: ' ', format: '', name: '' } as never)
    : undefined
  readonly #made = new Map<string, SingleBar>()
  readonly #told = new Map<string, number>()

  say (line: string): void {
    if (this.#bars !== undefined && this.#made.size > 0) this.#bars.log(`${line}\n`)
    else console.error(line)
  }

  progress (name: string, done: number, total: number, note: string): void {
    if (this.#bars !== undefined) {
      let bar = this.#made.get(name)
      if (bar === undefined) this.#made.set(name, bar = this.#bars.create(total, 0, { name, note }))
      bar.setTotal(total)
      bar.update(done, { name, note })
      return
    }
    const now = performance.now()
    if (now - (this.#told.get(name) ?? -Infinity) < 2_000 && done < total) return
    this.#told.set(name, now)
    console.error(`  ${name}: ${Math.floor(100 * done / Math.max(1, total))} % ${note}`)
  }

  stop (): void { this.#bars?.stop() }
}

const screen = new Screen()
const root = await mkdtemp(join(tmpdir(), 'shoal-demo-'))
const nodes: DemoNode[] = []
try {
  // npm runs scripts in the checkout, wherever it was called from.
  const source = positionals[0] === undefined ? join(root, 'model') : resolve(process.env.INIT_CWD ?? '.', positionals[0])
  const bytes = positionals[0] === undefined ? parseSize(values.size ?? '1GiB') : await directoryBytes(source)
  await checkRoom(bytes)
  if (positionals[0] === undefined) {
    screen.say(`Writing a LLaMA-shaped model of ${sizeText(bytes)}`)
    await writeSyntheticModel(source, { bytes, seed: Number(values.seed), signal, onProgress: ({ bytesDone, bytesTotal }) => { screen.progress('model ', bytesDone, bytesTotal, '') } })
  }

  screen.say('Starting five nodes in a private swarm on loopback')
  const first = await DemoNode.start('node 1', join(root, '1'))
  const invite = await first.client.invite()
  const start = async (i: number): Promise<DemoNode> => await DemoNode.start(`node ${i}`, join(root, String(i)), invite)
  const [second, third, fourth, fifth] = await Promise.all([start(2), start(3), start(4), start(5)])

  const added = await first.client.add(source, { signal, onProgress: ({ bytesDone, bytesTotal }) => { screen.progress('add   ', bytesDone, bytesTotal, 'on node 1') } })
  screen.say(`Added ${added.files} files, ${sizeText(added.bytes)}, ${added.blocks} blocks in ${added.seconds.toFixed(1)} s: ${added.cid}`)

  const early = await Promise.all([load(second, added.cid), load(third, added.cid)])
  let killed: Promise<void> | undefined
  let isDead = false
  const reached = new Set<DemoNode>()
  const late = await Promise.all([fourth, fifth].map(async node => {
    const result = await load(node, added.cid, fraction => {
      if (fraction >= KILL_AT) reached.add(node)
      if (reached.size < 2 || killed !== undefined) return
      killed = first.end('SIGKILL').then(() => {
        isDead = true
        screen.say('Killed node 1 (SIGKILL) while nodes 4 and 5 load')
      })
    })
    if (!isDead) throw new Error('a load was over before node 1 was dead; use a larger --size')
    return result
  }))
  screen.stop()

  const table = new Table({ head: ['node', 'seconds', 'GiB/s', ...nodes.map(node => `from ${node.name}`), 'duplicate'], style: { head: [], border: [] }, colAligns: ['left', ...Array<'right'>(nodes.length + 3).fill('right')] })
  for (const [i, result] of [...early, ...late].entries()) {
    table.push([`node ${i + 2}`, result.seconds.toFixed(2), (result.bytes / GiB / result.seconds).toFixed(2), ...nodes.map(node => sizeText(result.peers[node.peerId] ?? 0)), sizeText(result.duplicateBytes)])
  }
  console.log(table.toString())
  await compare(source, [...early, ...late])
} catch (error) {
  screen.stop()
  console.error(`demo: ${asError(signal.aborted ? signal.reason : error).message}`)
  process.exitCode = signal.aborted ? 130 : 1
} finally {
  await Promise.all(nodes.map(async node => { await node.end('SIGTERM') }))
  await rm(root, { recursive: true, force: true })
}

async function load (node: DemoNode, cid: string, onFraction: (fraction: number) => void = () => undefined): Promise<LoadResult> {
  return await node.client.load(cid, {
    signal,
    onProgress: ({ bytesDone, bytesTotal, rate, peers }) => {
      screen.progress(node.name, bytesDone, bytesTotal, peers === 0 ? '' : `${sizeText(rate)}/s from ${peers} ${peers === 1 ? 'peer' : 'peers'}`)
      if (bytesTotal > 0) onFraction(bytesDone / bytesTotal)
    }
  })
}

/** Every file of every loaded copy against the source, by sha-256. */
async function compare (source: string, results: LoadResult[]): Promise<void> {
  const paths = await filesBelow(source)
  let wrong = 0
  for (const path of paths) {
    const expected = await sha256(path)
    const name = (await stat(source)).isDirectory() ? relative(source, path) : path.slice(path.lastIndexOf('/') + 1)
    const equal = await Promise.all(results.map(async result => await sha256(join(result.path ?? '', name)) === expected))
    if (equal.includes(false)) wrong++
    console.log(`${equal.includes(false) ? 'DIFFERS' : 'equal  '}  ${expected.slice(0, 16)}  ${name}`)
  }
  if (wrong > 0) throw new Error(`${wrong} of ${paths.length} files differ from the source`)
  console.log(`All ${paths.length} files on nodes 2 to 5 equal the source (sha-256); node 1 was dead before nodes 4 and 5 had finished.`)
}

async function filesBelow (path: string): Promise<string[]> {
  if (!(await stat(path)).isDirectory()) return [path]
  const entries = await readdir(path, { recursive: true, withFileTypes: true })
  return entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name)).sort()
}

async function directoryBytes (path: string): Promise<number> {
  let total = 0
  for (const file of await filesBelow(path)) total += (await stat(file)).size
  return total
}

async function sha256 (path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/** The source, and one copy a node. */
async function checkRoom (bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(root)
  const need = bytes * 6 * 1.02
  if (bavail * bsize < need) throw new Error(`${tmpdir()} has ${sizeText(bavail * bsize)} free; the demo needs ${sizeText(need)}: use a smaller --size, or set TMPDIR to a larger disk`)
}
