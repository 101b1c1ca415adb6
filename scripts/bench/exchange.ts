/**
 * The transfer room alone beside one raw libp2p stream: a load between two processes over the same swarm key, Noise
 * and Yamux, from a memory store into one that forgets, so that no disk is in the way. Rounds alternate.
 * `node scripts/bench/exchange.ts SIZE ROUNDS`. Set PROFILE to a directory to have CPU profiles of both sides there.
 */
import { createCipheriv } from 'node:crypto'
import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { multiaddr } from '@multiformats/multiaddr'
import { BLOCK_BYTES_MAX, GiB, seededRandom, silentLogger, systemClock, systemRandom } from '../../src/base/index.ts'
import { tuneForBulk } from '../../src/base/runtime.ts'
import { parseSize } from '../../src/cli/units.ts'
import { createNetwork, type Network } from '../../src/discovery/index.ts'
import { encodeFileIndex, encodeManifest, hashBlock, type Model } from '../../src/model/index.ts'
import { createMemoryStore, type ModelStore, type Slot } from '../../src/storage/index.ts'
import { createExchange, type Exchange } from '../../src/transfer/index.ts'
import { median } from './lib.ts'
import { rawStreamSeconds } from './raw-stream.ts'

const SWARM_KEY = new Uint8Array(32).fill(7)
const TRANSFER = { requestTimeoutMs: 10_000, peersMax: 32, serverRequestsPerPeer: 256, uploadBytesPerSecond: undefined, downloadBytesPerSecond: undefined, lane: { enabled: false, port: 0, listen: [] } }

interface Peer { network: Network, store: ModelStore, exchange: Exchange }

async function peer (store: ModelStore): Promise<Peer> {
  const network = await createNetwork({ transport: 'tcp', listen: ['/ip4/127.0.0.1/tcp/0'], swarmKey: SWARM_KEY, maxConnections: 10, inboundPerSecond: 100, logger: silentLogger })
  await network.start()
  await store.start()
  const exchange = createExchange({ network, store, clock: systemClock, random: systemRandom, logger: silentLogger }, TRANSFER)
  await exchange.start()
  return { network, store, exchange }
}

function memoryStore (): ModelStore {
  return createMemoryStore({ clock: systemClock, random: systemRandom, logger: silentLogger, settings: { quota: undefined, directIo: 'off', slots: 24, syncBytes: 64 * 1024 * 1024, syncIntervalMs: 250 } })
}

/** 64 MiB of noise, each block of the model one of its 16 with a number written over its start: as many blocks as asked for, in little memory. */
function blocksOf (bytes: number): { model: Model, content: (block: number) => Buffer } {
  const noise = createCipheriv('aes-128-ctr', seededRandom(1).bytes(16), Buffer.alloc(16)).update(Buffer.alloc(16 * BLOCK_BYTES_MAX))
  const content = (block: number): Buffer => {
    const at = (block % 16) * BLOCK_BYTES_MAX
    const slice = noise.subarray(at, at + BLOCK_BYTES_MAX)
    slice.writeUInt32LE(block)
    return slice
  }
  const count = Math.ceil(bytes / BLOCK_BYTES_MAX)
  const blocks = Array.from({ length: count }, (_, block) => hashBlock(content(block)))
  const size = count * BLOCK_BYTES_MAX
  const index = encodeFileIndex({ version: 1, size, sha256: new Uint8Array(32), chunker: 'fixed', blocks, sizes: blocks.map(() => BLOCK_BYTES_MAX) })
  const manifest = encodeManifest({ version: 1, files: [{ path: 'model.bin', size, index: index.cid }] })
  return { model: { manifest, indexes: [index] }, content }
}

/** A store whose blocks are made when they are read, and dropped when they are written: what it costs is a copy. */
function hollow (store: ModelStore, content: ((block: number) => Buffer) | undefined): ModelStore {
  return new Proxy(store, {
    get (target, name) {
      if (name === 'readBlock' && content !== undefined) {
        return async ({ block, offset, size }: { block: number, offset: number, size: number }, slot: Slot) => {
          slot.prepare(offset, size).set(content(block))
          return true
        }
      }
      const value: unknown = Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) as unknown : value
    }
  })
}

async function seed (bytes: number): Promise<void> {
  const { model, content } = blocksOf(bytes)
  const store = memoryStore()
  const { network } = await peer(hollow(store, content))
  const stored = await store.putModel(model)
  const slot = await new Promise<Slot>(resolve => { store.slots.acquire(resolve) })
  const file = stored.files[0]
  if (file === undefined) throw new Error('a model without files')
  for (let block = 0; block < file.index.blocks.length; block++) {
    slot.prepare(file.offsets[block] ?? 0, BLOCK_BYTES_MAX).set(content(block))
    await store.writeBlock(file, block, slot)
  }
  slot.release()
  await store.flush()
  process.send?.({ address: network.getMultiaddrs()[0]?.toString(), id: network.peerId.toString() })
}

async function load (bytes: number): Promise<void> {
  const { model } = blocksOf(bytes)
  const { network, store, exchange } = await peer(memoryStore())
  process.send?.('ready')
  process.once('message', ({ address, id }: { address: string, id: string }) => {
    void (async () => {
      await network.dial(multiaddr(address))
      const stored = await store.putModel(model)
      const started = performance.now()
      const cpu = process.cpuUsage()
      const fetch = exchange.fetchModel({ model: stored })
      fetch.addPeer(id)
      await fetch.done
      const seconds = (performance.now() - started) / 1000
      const used = process.cpuUsage(cpu)
      process.send?.({ seconds, cpu: (used.user + used.system) / 1e6, duplicates: fetch.stats().duplicateBytes })
    })()
  })
}

async function answer<T> (child: ChildProcess): Promise<T> {
  return await new Promise((resolve, reject) => {
    child.once('message', message => { resolve(message as T) })
    child.once('exit', code => { reject(new Error(`a side of the bench ended with ${code}`)) })
  })
}

async function exchangeSeconds (bytes: number): Promise<{ seconds: number, cpu: number, duplicates: number }> {
  const { PROFILE } = process.env
  const execArgv = PROFILE === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${PROFILE}`]
  const start = (role: string): ChildProcess => fork(fileURLToPath(import.meta.url), [role, String(bytes)], { execArgv: [...process.execArgv, ...execArgv], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const children = [start('--seed'), start('--load')] as const
  try {
    const [address] = await Promise.all([answer<{ address: string, id: string }>(children[0]), answer(children[1])])
    children[1].send(address)
    return await answer(children[1])
  } finally {
    for (const child of children) child.send('end')
  }
}

tuneForBulk()
const [role, size = '1GiB', rounds = '3'] = process.argv.slice(2)
if (role === '--seed' || role === '--load') {
  process.on('message', message => { if (message === 'end') process.exit() })
  await (role === '--seed' ? seed : load)(Number(size))
} else {
  const bytes = Math.ceil(parseSize(role ?? '1GiB') / BLOCK_BYTES_MAX) * BLOCK_BYTES_MAX
  const raw: number[] = []; const own: number[] = []
  for (let round = 0; round < Number(role === undefined ? rounds : size === '1GiB' ? rounds : size); round++) {
    raw.push(bytes / GiB / await rawStreamSeconds(bytes, 'tuned'))
    const { seconds, cpu, duplicates } = await exchangeSeconds(bytes)
    own.push(bytes / GiB / seconds)
    console.log(`raw ${raw.at(-1)?.toFixed(3)}, exchange ${own.at(-1)?.toFixed(3)} GiB/s (receiver's CPU ${cpu.toFixed(2)} s of ${seconds.toFixed(2)} s, duplicates ${duplicates})`)
  }
  console.log(`median: raw ${median(raw).toFixed(3)}, exchange ${median(own).toFixed(3)} GiB/s, ratio ${(median(own) / median(raw)).toFixed(2)}`)
}
