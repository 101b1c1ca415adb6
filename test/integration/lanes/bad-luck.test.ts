import assert from 'node:assert/strict'
import { MiB, seededRandom } from '../../../src/base/index.ts'
import type { Slot } from '../../../src/storage/index.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'
import { Peers, connect, connectAll, holdAll, startFetch, type TestPeer } from '../transfer/peers.ts'
import { assertHeld, loadSmall, loadWhileCut, modelOf, transportOf } from './cases.ts'
import { Remote } from './proxy.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

describe(`lanes: bad luck (seed ${seed})`, function () {
  this.timeout(60_000)

  it('lanes cut at random bytes, 10 times: every load ends complete and right', async () => {
    const { cuts, loads } = await loadWhileCut(seed, 10, 4)
    assert(cuts >= 10 && loads >= 4)
  })

  it('one peer at 1 KB/s among four fast ones: at most 1.3 times the time without it', async () => {
    await using peers = new Peers()
    const rate = 16 * MiB
    const fast = await peers.addMany(4, { transport: 'tcp', lane: true, settings: { uploadBytesPerSecond: rate } })
    await using slow = await Remote.add(peers, { bytesPerSecond: 1_000 })
    const time = async (from: TestPeer[], number: number): Promise<number> => {
      const sample = modelOf(seed + number, 48 * MiB, 4 * MiB)
      const loader = await peers.add({ transport: 'tcp', lane: true })
      for (const peer of from) {
        await holdAll(peer.store, sample)
        if (peer === slow.peer) await slow.connect(loader)
        else await connect(loader, peer)
      }
      const started = performance.now()
      const fetch = await startFetch(loader, sample, from)
      await fetch.done
      const ms = performance.now() - started
      for (const peer of from) {
        assert.equal(transportOf(loader, peer), 'lane')
        await peer.store.removeModel(sample.cid)
      }
      await assertHeld(loader, sample)
      await peers.kill(loader)
      peers.all.splice(peers.all.indexOf(loader), 1)
      return ms
    }
    const without = await time(fast, 1)
    const beset = await time([...fast, slow.peer], 2)
    assert(slow.lanes > 0)

    assert(beset <= 1.3 * without, `${beset.toFixed(0)} ms with it, ${without.toFixed(0)} ms without`)
  })

  it('a peer that flips one bit in a thousand blocks is banned, and nothing wrong is stored', async () => {
    await using peers = new Peers()
    const [liar, honest, loader] = await peers.addMany(3, { transport: 'tcp', lane: true })
    assert(liar !== undefined && honest !== undefined && loader !== undefined)
    const sample = modelOf(seed, 1_000 * 8_192, 8_192)
    for (const peer of [liar, honest]) await holdAll(peer.store, sample)
    await connectAll(peers.all)
    const { store } = liar
    const read = store.readBlock.bind(store)
    let served = 0
    let flipped = 0
    // It must be one that is asked for early: the honest one serves the other half.
    const at = 1 + Math.floor(seededRandom(seed).next() * 200)
    store.readBlock = async (location, slot) => {
      const found = await read(location, slot)
      if (++served === at) {
        flipped++
        slot.bytes[slot.bytes.length >> 1] = (slot.bytes[slot.bytes.length >> 1] ?? 0) ^ 4
      }
      return found
    }
    const fetch = await startFetch(loader, sample, [liar, honest])
    await fetch.done
    assert.equal(flipped, 1)
    assert.equal(loader.exchange.isBanned(liar.id), true)
    assert.equal(loader.exchange.isBanned(honest.id), false)
    assert.equal(transportOf(loader, honest), 'lane')
    await assertHeld(loader, sample)
    await until('all slots are free', () => loader.store.slots.free === loader.store.slots.size, { withinMs: 5_000 })
  })

  it('more peers that stop within a block than there are slots: those who go on get the slots', async () => {
    await using peers = new Peers()
    const loader = await peers.add({ transport: 'tcp', lane: true, slots: 2, settings: { requestTimeoutMs: 1_000 } })
    const roads: Remote[] = []
    try {
      // A MiB comes through, and then nothing any more.
      for (let i = 0; i < 3; i++) roads.push(await Remote.add(peers, { stopAfter: 1 * MiB + 12_345 * i }))
      const honest = await peers.add({ transport: 'tcp', lane: true })
      const sample = modelOf(seed, 32 * MiB, 4 * MiB)
      for (const road of roads) {
        await holdAll(road.peer.store, sample)
        await road.connect(loader)
      }
      const fetch = await startFetch(loader, sample, roads.map(({ peer }) => peer))
      await until('they have stopped', () => roads.filter(({ stopped }) => stopped).length >= 2, { withinMs: 10_000 })
      await holdAll(honest.store, sample)
      await connect(loader, honest)
      const started = performance.now()
      fetch.addPeer(honest.id)
      await fetch.done
      assert(performance.now() - started < 8_000)
      await assertHeld(loader, sample)
      // Lanes are kept for a while; the slots that they were cancelled in are not.
      const given: Slot[] = []
      for (let i = 0; i < 2; i++) loader.store.slots.acquire(slot => { given.push(slot) })
      await until('whoever asks has all slots', () => given.length === 2, { withinMs: 3_000 })
      for (const slot of given) slot.release()
    } finally {
      for (const road of roads) await road[Symbol.asyncDispose]()
    }
  })

  it('100 small loads, each over a lane of its own: no descriptor and nothing else is left', async () => {
    await loadSmall(seed, 100)
  })
})
