import assert from 'node:assert/strict'
import { MiB } from '../../../src/base/index.ts'
import { seedOf, type Sample } from '../../compliance/store-fixtures.ts'
import type { ExchangeSettings, ModelFetchInit } from '../../../src/transfer/index.ts'
import { Peers, connect, holdAll, startFetch, type TestPeer } from '../transfer/peers.ts'
import { modelOf } from './cases.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()
/** Of a bucket, which lets this much through at once. */
const BURST = 1 * MiB

/** A peer that has the model. */
async function holding (peers: Peers, sample: ReturnType<typeof modelOf>, settings: Partial<ExchangeSettings>, lane: boolean): Promise<TestPeer> {
  const peer = await peers.add({ transport: 'tcp', lane, settings })
  await holdAll(peer.store, sample)
  return peer
}

/** Milliseconds that a load takes. */
async function timed (loader: TestPeer, sample: ReturnType<typeof modelOf>, seeders: TestPeer[], init: Partial<ModelFetchInit> = {}): Promise<number> {
  for (const seeder of seeders) await connect(loader, seeder)
  const started = performance.now()
  const fetch = await startFetch(loader, sample, seeders, init)
  await fetch.done
  return performance.now() - started
}

describe(`lanes: caps and fairness (seed ${seed})`, function () {
  this.timeout(60_000)

  for (const lane of [true, false]) {
    const over = lane ? 'lanes' : 'streams'

    it(`a cap for each peer holds for each by itself, over ${over}`, async () => {
      await using peers = new Peers()
      const rate = 3 * MiB
      // One each: who loads the same is told of the other, and gets blocks from there too.
      const samples = [seed, seed + 1].map(each => modelOf(each, 5 * MiB, MiB))
      const seeder = await holding(peers, samples[0] as Sample, { peerBytesPerSecond: rate }, lane)
      await holdAll(seeder.store, samples[1] as Sample)
      const ms = await Promise.all(samples.map(async sample => await timed(await peers.add({ transport: 'tcp', lane }), sample, [seeder])))
      const least = (5 * MiB - BURST) / rate * 1000
      for (const one of ms) assert(one >= 0.9 * least && one < 1.8 * least, `${ms.map(Math.round).join(' and ')} ms; ${least} by the cap, ${2 * least} if both shared it`)
    })
  }

  it('where the loader has the cap, two peers give twice what one gives', async () => {
    await using peers = new Peers()
    const rate = 4 * MiB
    const sample = modelOf(seed, 7 * MiB, MiB)
    const seeders = [await holding(peers, sample, {}, true), await holding(peers, sample, {}, true)]
    const loader = await peers.add({ transport: 'tcp', lane: true, settings: { peerBytesPerSecond: rate } })
    const ms = await timed(loader, sample, seeders)
    const alone = (7 * MiB - BURST) / rate * 1000
    assert(ms >= 0.4 * alone && ms < 0.9 * alone, `${Math.round(ms)} ms; ${alone} from one peer`)
  })

  it('what nobody waits for keeps to the cap of the hour, and what somebody waits for does not', async () => {
    await using peers = new Peers()
    const rate = 4 * MiB
    const sample = modelOf(seed, 5 * MiB, MiB)
    const now = new Date().getHours() * 60 + new Date().getMinutes()
    const seeder = await holding(peers, sample, { backgroundRates: [{ from: 0, to: 1440, bytesPerSecond: rate }] }, true)
    const other = await holding(peers, sample, { backgroundRates: [{ from: (now + 600) % 1440, to: (now + 660) % 1440, bytesPerSecond: rate }] }, true)
    const [waits, canWait, atAnotherHour] = await peers.addMany(3, { transport: 'tcp', lane: true })
    assert(waits !== undefined && canWait !== undefined && atAnotherHour !== undefined)
    const least = (5 * MiB - BURST) / rate * 1000
    const held = await timed(canWait, sample, [seeder], { isBackground: () => true })
    assert(held >= 0.9 * least, `${Math.round(held)} ms, ${least} by the cap`)
    for (const free of [await timed(waits, sample, [seeder]), await timed(atAnotherHour, sample, [other], { isBackground: () => true })]) {
      assert(free < 0.6 * least, `${Math.round(free)} ms without a cap, ${least} with it`)
    }
  })

  it('one that asks for a hundred times as much gets no more than each of ten others', async () => {
    await using peers = new Peers()
    const rate = 24 * MiB
    const small = modelOf(seed, 2 * MiB, MiB / 2)
    const seeder = await holding(peers, small, { uploadBytesPerSecond: rate }, true)
    const large = modelOf(seed + 1, 64 * MiB, 4 * MiB)
    await holdAll(seeder.store, large)
    const warm = modelOf(seed + 2, MiB, MiB)
    await holdAll(seeder.store, warm)
    const greedy = await peers.add({ transport: 'tcp', lane: true, slots: 60 })
    const others = await peers.addMany(10, { transport: 'tcp', lane: true })
    await Promise.all(others.map(async other => await timed(other, warm, [seeder]))) // their lanes are open now
    await connect(greedy, seeder)
    const taking = await startFetch(greedy, large, [seeder])
    taking.done.catch(() => undefined)
    await until('the greedy one is at it', () => taking.stats().fetchedBytes > 2 * MiB, { withinMs: 5_000 })
    const before = taking.stats().fetchedBytes
    const taken = await Promise.race(others.map(async other => {
      await timed(other, small, [seeder])
      return taking.stats().fetchedBytes - before
    }))
    await taking.stop()
    // Turns are taken by peers: until the first of them had its 2 MiB, the greedy one had as much.
    assert(taken <= 1.5 * 2 * MiB + BURST, `${taken} bytes went to it, 2 MiB to the first of the others`)
  })
})
