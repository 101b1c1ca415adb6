import assert from 'node:assert/strict'
import { KiB, MiB, seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import { createLinkLimiter } from '../../../src/discovery/index.ts'
import type { FrameStream } from '../../../src/transfer/frame-stream.ts'
import { Lanes } from '../../../src/transfer/lanes/lanes.ts'
import { DATA, blockClientRules, blockServerRules } from '../../../src/transfer/messages.ts'
import { packData } from '../../../src/transfer/wire.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'
import { Peers, connect, holdAll, startFetch } from '../transfer/peers.ts'
import { assertHeld, modelOf, transportOf } from './cases.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

describe(`lanes on slow links and busy machines (seed ${seed})`, function () {
  this.timeout(30_000)

  it('one that opens late takes the place of the stream in the middle of a load, and nothing comes twice', async () => {
    await using peers = new Peers()
    const rate = 8 * MiB
    const sample = modelOf(seed, 24 * MiB, MiB)
    const seeder = await peers.add({ transport: 'tcp', lane: true, laneAfterMs: 3_500, settings: { uploadBytesPerSecond: rate } })
    await holdAll(seeder.store, sample)
    const loader = await peers.add({ transport: 'tcp', lane: true })
    await connect(loader, seeder)
    const fetch = await startFetch(loader, sample, [seeder])
    await until('a block came over the stream', () => fetch.stats().fetchedBytes > 0, { withinMs: 5_000 })
    assert.equal(transportOf(loader, seeder), 'stream')
    await until('the lane is there', () => transportOf(loader, seeder) === 'lane', { withinMs: 5_000 })
    const before = fetch.stats().fetchedBytes
    assert(before < sample.bytes / 2, `${before} of ${sample.bytes} bytes are here already`)
    await fetch.done
    await assertHeld(loader, sample)
    assert.deepEqual([fetch.stats().fetchedBytes, fetch.stats().duplicateBytes], [sample.bytes, 0])
    await until('the stream is closed', () => loader.network.getConnections().flatMap(({ streams }) => streams).every(({ protocol }) => !protocol.includes('/block/')), { withinMs: 5_000 })
  })

  it('one that opens when nobody asks for anything any more is used by the next load', async () => {
    await using peers = new Peers()
    const [first, second] = [modelOf(seed + 1, MiB, MiB), modelOf(seed + 2, MiB, MiB)]
    const seeder = await peers.add({ transport: 'tcp', lane: true, laneAfterMs: 3_500 })
    for (const sample of [first, second]) await holdAll(seeder.store, sample)
    const loader = await peers.add({ transport: 'tcp', lane: true })
    await connect(loader, seeder)
    await (await startFetch(loader, first, [seeder])).done
    assert.equal(transportOf(loader, seeder), 'stream')
    await until('the lane is there', () => transportOf(loader, seeder) === 'lane', { withinMs: 5_000 })
    await (await startFetch(loader, second, [seeder])).done
    await assertHeld(loader, second)
  })

  it('says when more may be sent, also when what was queued has become too much because the link turned out to be slow', async () => {
    await using peers = new Peers()
    const hosts = [await peers.addBare({ transport: 'tcp' }), await peers.addBare({ transport: 'tcp' })] as const
    const bytesPerSecond = MiB
    const linkLimiter = createLinkLimiter({ sendBytesPerSecond: bytesPerSecond, receiveBytesPerSecond: bytesPerSecond, clock: systemClock })
    let served: FrameStream | undefined
    let drained = 0
    const rules = { frame: () => undefined, data: () => undefined, closed: () => undefined }
    const [asking, offering] = hosts.map(({ network }, i) => new Lanes(
      { network, clock: systemClock, random: seededRandom(i), logger: silentLogger, linkLimiter: i === 1 ? linkLimiter : undefined },
      { enabled: true, port: 0, listen: ['/ip4/127.0.0.1/tcp/0'] },
      { accept: (_peerId, open) => { served = open(blockServerRules, { ...rules, drained: () => { drained++ } }); return true }, isBanned: () => false }
    ))
    assert(asking !== undefined && offering !== undefined)
    try {
      await asking.start()
      await offering.start()
      await connect(...hosts)
      const lane = await asking.open(hosts[1].id, new AbortController().signal).lane
      lane?.open(blockClientRules, { ...rules, drained: () => undefined })
      const frames = served ?? assert.fail('no lane')
      const send = (bytes: number): boolean => frames.send(packData(DATA, 1, new Uint8Array(bytes), 0, frames.shape, length => frames.allocate(length)).frames)
      // It holds back what the cap does not let out. 220 KiB are not too much, and when the first is out 100 KiB are, for a moment in
      // which whoever has more to send turns away.
      assert(send(120 * KiB) && send(100 * KiB))
      assert.equal(drained, 0)
      await until('more may be sent', () => drained > 0, { withinMs: 5_000 })
      assert.equal(frames.blocked, false)
    } finally {
      await Promise.all([asking.stop(), offering.stop()])
    }
  })

  it('one that delivered nothing while others waited for its slot may be opened once more at once; a second time it is as good as none', async () => {
    await using peers = new Peers()
    const { network } = await peers.addBare({ transport: 'tcp' })
    const other = await peers.addBare({ transport: 'tcp' })
    const lanes = new Lanes({ network, clock: systemClock, random: seededRandom(seed), logger: silentLogger }, { enabled: true, port: 0, listen: ['/ip4/127.0.0.1/tcp/0'] }, { accept: () => true, isBanned: () => false })
    try {
      await lanes.start()
      await connect({ network }, other)
      const mayAfter = (delivered: boolean, slow: boolean): boolean => {
        lanes.ended(other.id, { delivered, slow })
        return lanes.mayOpen(other.id)
      }
      assert.deepEqual([mayAfter(false, true), mayAfter(false, true), mayAfter(true, true), mayAfter(false, false)], [true, false, true, false])
    } finally {
      await lanes.stop()
    }
  })
})
