import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { MiB, PeerGoneError, randomInt, seededRandom, type Random } from '../../../src/base/index.ts'
import { contentOf, fileOf, readBlock, sampleOf, type Sample } from '../../compliance/store-fixtures.ts'
import { Peers, connect, holdAll, startFetch, type TestPeer } from '../transfer/peers.ts'
import { Remote } from './proxy.ts'
import { until } from '../../support/until.ts'

/** One file of this many bytes, in blocks of any size, or of `blockBytes`. */
export function modelOf (seed: number, bytes: number, blockBytes?: number): Sample {
  const random = seededRandom(seed)
  const content = contentOf(random, bytes)
  const sizes = blockBytes === undefined ? {} : { sizes: Array.from({ length: Math.ceil(bytes / blockBytes) }, (_, i) => Math.min(blockBytes, bytes - i * blockBytes)) }
  return sampleOf([{ path: 'model.bin', content, ...sizes }], random)
}

export function descriptors (): number { return readdirSync('/proc/self/fd').length }

/** Sockets that somebody holds at this port's side of their connection: not those that only the kernel still remembers. */
export function connectionsAt (port: number): number {
  return readFileSync('/proc/self/net/tcp', 'utf8').split('\n').slice(1).filter(line => {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/)
    return state !== '0A' && inode !== '0' && Number.parseInt(local?.split(':')[1] ?? '', 16) === port
  }).length
}

/** Ends all connections of these peers, also those that one of them opens meanwhile for reasons of its own. */
export async function part (...peers: TestPeer[]): Promise<void> {
  await until('they are apart', () => {
    const open = peers.flatMap(({ network }) => network.getConnections())
    for (const connection of open) connection.abort(new PeerGoneError('enough'))
    return open.length === 0
  }, { withinMs: 5_000 })
}

/** What carries bytes between the two, as `of` sees it. */
export function transportOf (of: TestPeer, to: { id: string }): string | undefined {
  return of.exchange.peers().find(({ peerId }) => peerId === to.id)?.transport
}

/** Every block is recorded and right, as the store reads it back. */
export async function assertHeld (peer: TestPeer, sample: Sample): Promise<void> {
  for (const [position, { content }] of sample.files.entries()) {
    const file = fileOf(peer.store, sample, position)
    for (const [block, offset] of file.offsets.entries()) {
      const bytes = await readBlock(peer.store, file, block)
      assert(bytes?.equals(content.subarray(offset, offset + (file.index.sizes[block] ?? 0))), `block ${block} is not what it should be`)
    }
  }
}

/** Loads over lanes that are cut at random bytes, by several loaders at once, until there were so many cuts. Each load ends complete and right. */
export async function loadWhileCut (seed: number, cuts: number, loaders: number, laneThreads?: number): Promise<{ loads: number, cuts: number }> {
  const random: Random = seededRandom(seed)
  const bytes = 12 * MiB
  await using peers = new Peers()
  const roads: Remote[] = []
  for (let i = 0; i < loaders; i++) roads.push(await Remote.add(peers, { cutAfter: () => randomInt(random, bytes) }, { laneThreads }))
  const before = descriptors()
  let loads = 0
  const stopping: Array<Promise<void>> = []
  const total = (): number => roads.reduce((sum, road) => sum + road.cuts, 0)
  try {
    await Promise.all(roads.map(async (road, number) => {
      for (let round = 0; total() < cuts; round++) {
        const sample = modelOf(seed + number * 10_000 + round, bytes, round % 4 === 3 ? undefined : 1 * MiB)
        await holdAll(road.peer.store, sample)
        const loader = await peers.add({ transport: 'tcp', lane: true, laneThreads, slots: 3 })
        await road.connect(loader)
        const fetch = await startFetch(loader, sample, [road.peer])
        fetch.events.on('starved', () => { fetch.addPeer(road.peer.id) }) // as a node does that looks for providers again
        await fetch.done
        assert.equal(fetch.stats().bytesDone, sample.bytes)
        await assertHeld(loader, sample)
        assert.deepEqual([loader.exchange.isBanned(road.peer.id), road.peer.exchange.isBanned(loader.id)], [false, false])
        await until('all slots are free', () => loader.store.slots.free === loader.store.slots.size, { withinMs: 5_000 })
        await road.peer.store.removeModel(sample.cid)
        stopping.push(peers.kill(loader))
        peers.all.splice(peers.all.indexOf(loader), 1)
        loads++
      }
    }))
    await Promise.all(stopping)
    await until(`all descriptors are back: ${before} before`, () => descriptors() <= before, { withinMs: 5_000 })
  } finally {
    for (const road of roads) await road[Symbol.asyncDispose]()
  }
  return { loads, cuts: total() }
}

/** Descriptors and other handles that are not libp2p's connections: peers that know each other open those anew when they like. */
function beside (...peers: TestPeer[]): { descriptors: number, resources: number } {
  const connections = peers.reduce((sum, { network }) => sum + network.getConnections().length, 0)
  const kinds = process.getActiveResourcesInfo().filter(kind => kind !== 'Timeout' && kind !== 'Immediate')
  return { descriptors: descriptors() - connections, resources: kinds.length - connections }
}

/** So many loads of a small model, each over a connection and a lane of its own; nothing is left of any. Returns RSS in bytes after each. */
export async function loadSmall (seed: number, count: number, collect: () => void = () => undefined, laneThreads?: number): Promise<number[]> {
  await using peers = new Peers()
  const [seeder, loader] = await peers.addMany(2, { transport: 'tcp', lane: true, laneThreads })
  assert(seeder !== undefined && loader !== undefined)
  const rss: number[] = []
  let before = beside()
  for (let i = 0; i < count; i++) {
    const sample = modelOf(seed + i, 100_000, 30_000)
    await holdAll(seeder.store, sample)
    await connect(loader, seeder)
    const fetch = await startFetch(loader, sample, [seeder])
    await fetch.done
    assert.equal(transportOf(loader, seeder), 'lane', `load ${i}`)
    assert.equal(fetch.stats().fetchedBytes, sample.bytes)
    await part(loader, seeder)
    await seeder.store.removeModel(sample.cid)
    await loader.store.removeModel(sample.cid)
    // What the first ones leave behind are caches, and parts of the program that were not there before.
    if (i < 5) {
      await new Promise(resolve => { setTimeout(resolve, 50) })
      before = beside(seeder, loader)
    }
    if (i % 20 === 0) collect()
    rss.push(process.memoryUsage.rss())
  }
  await until(`as before: ${JSON.stringify(before)}; ${JSON.stringify(beside(seeder, loader))} at first, ${process.getActiveResourcesInfo().join(' ')}`, () => {
    const { descriptors, resources } = beside(seeder, loader)
    return descriptors <= before.descriptors && resources <= before.resources
  }, { withinMs: 5_000 })
  assert.equal(loader.store.slots.free, loader.store.slots.size)
  return rss
}
