import assert from 'node:assert/strict'
import { KiB, MiB, seededRandom } from '../../../src/base/index.ts'
import { fastClock } from '../../../scripts/lib/fast-clock.ts'
import { contentOf, readBlock, sampleOf, seedOf, fileOf, type Sample } from '../../compliance/store-fixtures.ts'
import { Peers, connectAll, holdAll, startFetch } from './peers.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

describe(`loading from peers (seed ${seed})`, () => {
  it('loads a model from one peer, byte for byte', async () => {
    await using peers = new Peers()
    const [a, b] = await peers.addMany(2)
    assert(a !== undefined && b !== undefined)
    await connectAll(peers.all)
    const sample = sampleOf([
      { path: 'a.bin', content: contentOf(seededRandom(seed), 20 * MiB + 77) },
      { path: 'b/c.bin', content: contentOf(seededRandom(seed + 1), 3 * MiB) },
      { path: 'empty', content: Buffer.alloc(0) }
    ], seededRandom(seed))
    await holdAll(a.store, sample)
    const fetch = await startFetch(b, sample, [a])
    await fetch.done
    const stats = fetch.stats()
    assert.equal(stats.bytesDone, sample.bytes)
    assert.equal(stats.fetchedBytes, sample.bytes)
    assert.equal(stats.duplicateBytes, 0)
    assert.deepEqual(stats.peers, { [a.id]: sample.bytes })
    for (const [position, { content }] of sample.files.entries()) {
      const file = fileOf(b.store, sample, position)
      for (const [block, offset] of file.offsets.entries()) {
        assert.deepEqual(await readBlock(b.store, file, block), content.subarray(offset, offset + (file.index.sizes[block] ?? 0)))
      }
    }
  })

  it('goes on serving after a model was removed that others were being served', async () => {
    await using peers = new Peers()
    const a = await peers.add({ settings: { uploadBytesPerSecond: 4 * MiB } })
    const [b, c] = await peers.addMany(2)
    assert(b !== undefined && c !== undefined)
    await connectAll(peers.all)
    const many = (name: string): Sample => sampleOf(Array.from({ length: 60 }, (_, i) => ({ path: `${name}-${i}`, content: contentOf(seededRandom(seed + i), 100_000 + i + name.length) })), seededRandom(seed))
    const [gone, kept] = [many('gone'), many('stays')]
    await holdAll(a.store, gone)
    await holdAll(a.store, kept)
    const cut = await startFetch(b, gone, [a])
    cut.done.catch(() => undefined)
    await until('a byte came', () => cut.stats().fetchedBytes > 0, { everyMs: 5 })
    await a.store.removeModel(gone.model.manifest.cid.toString())
    const fetch = await startFetch(c, kept, [a])
    await fetch.done
    assert.equal(fetch.stats().fetchedBytes, kept.bytes)
    await cut.stop()
  })

  it('serves who is waited for first, and who is not with what is left', async () => {
    await using peers = new Peers()
    const a = await peers.add({ settings: { uploadBytesPerSecond: 64 * MiB } })
    const [b, c] = await peers.addMany(2)
    assert(b !== undefined && c !== undefined)
    await connectAll(peers.all)
    const large = (name: string, number: number): Sample => sampleOf([{ path: name, content: contentOf(seededRandom(seed + number), 64 * MiB) }], seededRandom(seed))
    const [replica, load] = [large('replica', 1), large('load', 2)]
    await holdAll(a.store, replica)
    await holdAll(a.store, load)
    const later = await startFetch(b, replica, [a], { isBackground: () => true })
    await until('a byte came', () => later.stats().fetchedBytes > 0, { everyMs: 5 })
    const before = later.stats().fetchedBytes
    const fetch = await startFetch(c, load, [a])
    await fetch.done
    const meanwhile = later.stats().fetchedBytes - before
    assert(meanwhile < load.bytes / 4, `${meanwhile} bytes went to who can wait, while ${load.bytes} went to who cannot`)
    await later.done
    assert.equal(later.stats().fetchedBytes, replica.bytes)
  })

  it('does not keep a load behind what the same peer is given slowly, for nobody waits for that', async () => {
    await using peers = new Peers()
    const a = await peers.add({ settings: { backgroundRates: [{ from: 0, to: 1440, bytesPerSecond: 512 * KiB }] } })
    const b = await peers.add()
    await connectAll(peers.all)
    const large = (name: string, number: number): Sample => sampleOf([{ path: name, content: contentOf(seededRandom(seed + number), 24 * MiB) }], seededRandom(seed))
    const [replica, load] = [large('replica', 1), large('load', 2)]
    await holdAll(a.store, replica)
    await holdAll(a.store, load)
    const later = await startFetch(b, replica, [a], { isBackground: () => true })
    await until('a byte came', () => later.stats().fetchedBytes > 0, { everyMs: 5 })
    const started = performance.now()
    await (await startFetch(b, load, [a])).done
    const seconds = (performance.now() - started) / 1000
    assert(seconds < 6, `${seconds.toFixed(1)} s for 24 MiB`)
    assert(later.stats().bytesDone < replica.bytes)
    later.done.catch(() => undefined)
    await later.stop()
  })

  it('tries who waits for a place when slow peers have them all', async function () {
    this.timeout(30_000)
    await using peers = new Peers()
    const slow = await peers.addMany(2, { settings: { uploadBytesPerSecond: 256 * KiB } })
    const [fast] = await peers.addMany(1)
    const loader = await peers.add({ clock: fastClock(5), settings: { peersMax: 2, requestTimeoutMs: 60_000 } }) // ten seconds in two
    assert(fast !== undefined)
    await connectAll(peers.all)
    const sample = sampleOf([{ path: 'model.bin', content: contentOf(seededRandom(seed), 32 * MiB), sizes: Array.from({ length: 128 }, () => 256 * KiB) }], seededRandom(seed))
    for (const peer of [...slow, fast]) await holdAll(peer.store, sample)
    const started = performance.now()
    const fetch = await startFetch(loader, sample, [...slow, fast])
    await fetch.done
    const seconds = (performance.now() - started) / 1000
    assert(seconds < 10, `${seconds.toFixed(1)} s, where the slow ones take 64`)
    assert((fetch.stats().peers[fast.id] ?? 0) > sample.bytes / 2)
  })

  it('goes on with a load whose peer gives nothing to a repair meanwhile, and with the repair after that', async function () {
    this.timeout(30_000)
    await using peers = new Peers()
    const a = await peers.add({ settings: { uploadBytesPerSecond: 8 * MiB } })
    const b = await peers.add({ clock: fastClock(10), settings: { requestTimeoutMs: 10_000 } }) // half a minute in three seconds
    await connectAll(peers.all)
    const blocks = (path: string, count: number, size: number): Sample => sampleOf([{ path, content: contentOf(seededRandom(seed + count), count * size), sizes: Array.from({ length: count }, () => size) }], seededRandom(seed))
    // What can wait has a turn in a stream when its share pays for what it had before: the second block comes after the load.
    const [replica, large] = [blocks('replica', 2, 4 * MiB), blocks('load', 140, 256 * KiB)]
    await holdAll(a.store, replica)
    await holdAll(a.store, large)
    const load = await startFetch(b, large, [a])
    await until('a byte came', () => load.stats().fetchedBytes > 0, { everyMs: 5 })
    const repair = await startFetch(b, replica, [a], { isBackground: () => true })
    const left: string[] = []
    load.events.on('peer:left', ({ reason }) => { left.push(`load: ${reason}`) })
    repair.events.on('peer:left', ({ reason }) => { left.push(`repair: ${reason}`) })
    await load.done
    assert.deepEqual(left, ['repair: it sends to another load of this node, and nothing to this one'])
    assert.equal(load.stats().duplicateBytes, 0)
    assert.equal(b.exchange.peers().find(({ peerId }) => peerId === a.id)?.score, 1)
    await repair.done
    assert.equal(repair.stats().fetchedBytes, replica.bytes)
  })
})
