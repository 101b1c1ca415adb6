/**
 * How fast a node announces: the region sweep against kad-dht's own `provide()`, on the same nodes in the same run.
 * `node scripts/bench/announce.ts [--nodes 20] [--blocks 20000] [--sample 200]`
 */
import { parseArgs } from 'node:util'
import type { CID } from 'multiformats/cid'
import { CID as Cid } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import * as Digest from 'multiformats/hashes/digest'
import { seededRandom, silentLogger, sleep, systemClock, systemRandom } from '../../src/base/index.ts'
import { createDhtRouter, createNetwork, dhtKey, type Network } from '../../src/discovery/index.ts'
import { machine } from './lib.ts'

const BLAKE3 = 0x1e
/** `provide()` calls under way at once; more do not make it faster. */
const PROVIDE_CONCURRENCY = 16

export interface AnnounceBench {
  sweepKeysPerSecond: number
  provideKeysPerSecond: number
  ratio: number
  /** Of the sample, how many another node then found a provider for. */
  found: number
  seed: number
}

/** Nodes over the memory transport, all connected to the first, in memory. `sample` keys go through `provide()` too. */
export async function benchAnnounce (init: { nodes: number, blocks: number, sample: number, seed?: number }): Promise<AnnounceBench> {
  const seed = init.seed ?? 1
  const random = seededRandom(seed)
  const swarmKey = systemRandom.bytes(32)
  const networks: Network[] = []
  try {
    for (let i = 0; i < init.nodes; i++) networks.push(await startNetwork(i, swarmKey))
    const [first, second] = networks
    const address = first?.getMultiaddrs()[0]
    if (first === undefined || second === undefined || address === undefined) throw new RangeError('at least two nodes are needed')
    for (const network of networks.slice(1)) await network.dial(address)
    await until(() => networks.every(network => network.getPeers().length >= Math.min(init.nodes, 20) - 1))

    // Half of the sample before and half after, so that a machine that is busy for a while counts in both.
    const sample = cids(init.sample, random)
    const half = sample.length >> 1
    let provideSeconds = await timeProvide(first, sample.slice(0, half))
    const { keysPerSecond, found } = await timeSweep(first, second, cids(init.blocks, random), init.sample)
    provideSeconds += await timeProvide(first, sample.slice(half))
    const provideKeysPerSecond = sample.length / provideSeconds
    return { sweepKeysPerSecond: keysPerSecond, provideKeysPerSecond, ratio: keysPerSecond / provideKeysPerSecond, found, seed }
  } finally {
    await Promise.all(networks.map(async network => { await network.stop() }))
  }
}

async function startNetwork (position: number, swarmKey: Uint8Array): Promise<Network> {
  const network = await createNetwork({
    listen: [`/memory/announce-bench-${position}`],
    transport: 'memory',
    swarmKey,
    maxConnections: 300,
    inboundPerSecond: 1_000,
    logger: silentLogger
  })
  await network.start()
  return network
}

/** Seconds. */
async function timeProvide (network: Network, sample: CID[]): Promise<number> {
  const waiting = sample.slice()
  const started = performance.now()
  await Promise.all(Array.from({ length: PROVIDE_CONCURRENCY }, async () => {
    for (let cid = waiting.shift(); cid !== undefined; cid = waiting.shift()) {
      for await (const event of network.services.dht.provide(dhtKey(cid))) void event
    }
  }))
  return (performance.now() - started) / 1_000
}

async function timeSweep (network: Network, other: Network, blocks: CID[], sample: number): Promise<{ keysPerSecond: number, found: number }> {
  const settings = { periodMs: 22 * 3_600_000, concurrency: 4 }
  const parts = { clock: systemClock, random: systemRandom, logger: silentLogger, settings }
  const router = createDhtRouter({ network, ...parts })
  const finder = createDhtRouter({ network: other, ...parts })
  await Promise.all([router.start(), finder.start()])
  try {
    const started = performance.now()
    router.announce(blocks)
    await until(() => router.status().sweptAt !== undefined && router.status().backlog === 0)
    const seconds = (performance.now() - started) / 1_000
    const { announced, failed } = router.status()
    if (announced !== blocks.length || failed !== 0) throw new Error(`announced ${announced} of ${blocks.length} keys, ${failed} failed`)
    let found = 0
    for (let i = 0; i < sample; i++) {
      const cid = blocks[Math.floor(i * blocks.length / sample)]
      if (cid === undefined) continue
      for await (const provider of finder.findProviders(cid)) {
        if (provider.peerId !== network.peerId.toString()) continue
        found++
        break
      }
    }
    return { keysPerSecond: blocks.length / seconds, found }
  } finally {
    await Promise.all([router.stop(), finder.stop()])
  }
}

function cids (count: number, random: { bytes: (length: number) => Uint8Array }): CID[] {
  return Array.from({ length: count }, () => Cid.createV1(raw.code, Digest.create(BLAKE3, random.bytes(32))))
}

async function until (condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(systemClock, 20)
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { nodes: { type: 'string', default: '20' }, blocks: { type: 'string', default: '20000' }, sample: { type: 'string', default: '200' }, seed: { type: 'string', default: '1' } }
  })
  console.log(machine())
  console.log(await benchAnnounce({ nodes: Number(values.nodes), blocks: Number(values.blocks), sample: Number(values.sample), seed: Number(values.seed) }))
}
