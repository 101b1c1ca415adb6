import assert from 'node:assert/strict'
import { DiskError, KiB, MiB, SERVE_SLOTS, STREAMS_PER_PEER_MAX } from '../../../src/base/index.ts'
import { DATA, NOT_HERE } from '../../../src/transfer/messages.ts'
import { Served, type Reader } from './readers.ts'

describe('the server of blocks', () => {
  it('gives who can wait one byte of thirty-two while others are always ready', async () => {
    await using served = await Served.start({ uploadBytesPerSecond: 24 * MiB })
    const [one, two, later] = ['one', 'two', 'later'].map(peerId => served.reader(peerId, 100 * MiB))
    assert(one !== undefined && two !== undefined && later !== undefined)
    one.ask(4, { keep: true })
    two.ask(4, { keep: true })
    later.ask(4, { later: true, keep: true })
    await served.clock.pass(10_000)
    const all = one.bytes.first + two.bytes.first + later.bytes.later
    assert(all > 230 * MiB, `${all} bytes in all`)
    const share = later.bytes.later / all
    assert(share > 1 / 40 && share < 1 / 26, `a share of ${share}`)
  })

  it('and under a low cap no more than that', async () => {
    await using served = await Served.start({ uploadBytesPerSecond: 1 * MiB })
    const [one, later] = ['one', 'later'].map(peerId => served.reader(peerId, 100 * MiB))
    assert(one !== undefined && later !== undefined)
    one.ask(4, { keep: true })
    later.ask(4, { later: true, keep: true })
    await served.clock.pass(60_000)
    const share = later.bytes.later / (one.bytes.first + later.bytes.later)
    assert(share > 1 / 64 && share < 1 / 16, `a share of ${share}`)
  })

  it('gives what can wait its share of one stream, too', async () => {
    await using served = await Served.start({ uploadBytesPerSecond: 24 * MiB })
    const reader = served.reader('one', 100 * MiB)
    reader.ask(8, { keep: true })
    reader.ask(8, { later: true, keep: true })
    await served.clock.pass(40_000)
    const share = reader.bytes.later / (reader.bytes.first + reader.bytes.later)
    assert(share > 1 / 48 && share < 1 / 16, `a share of ${share}`)
  })

  it('keeps that share of a stream to the cap of the hour', async () => {
    await using served = await Served.start({ backgroundRates: [{ from: 0, to: 1440, bytesPerSecond: 0.25 * MiB }] })
    const reader = served.reader('one', 32 * MiB)
    reader.ask(8, { keep: true })
    reader.ask(8, { later: true, keep: true })
    await served.clock.pass(20_000)
    assert(reader.bytes.later >= 4 * MiB && reader.bytes.later <= 10 * MiB, `${reader.bytes.later} bytes; 5 MiB by the cap, 20 by the share`)
  })

  it('has a slot at once for who comes while one peer reads slowly over as many streams as it may have', async () => {
    await using served = await Served.start()
    const streams = Array.from({ length: STREAMS_PER_PEER_MAX }, () => served.reader('slow', 0.6 * MiB))
    for (const stream of streams) stream.ask(4, { keep: true })
    await served.clock.pass(2_000)
    assert.equal(served.server.slotsFree, 0)
    const reader = served.reader('other', 100 * MiB)
    reader.ask(8, { keep: true })
    await served.clock.pass(1_000)
    assert(reader.bytes.first > 60 * MiB, `${reader.bytes.first} bytes in a second; 100 MiB without the slow one`)
    const before = streams.reduce((sum, { bytes }) => sum + bytes.first, 0)
    await served.clock.pass(4_000)
    const taken = streams.reduce((sum, { bytes }) => sum + bytes.first, 0) - before
    assert(taken > 6 * MiB, `the slow one got ${taken} bytes in 4 s`)
  })

  it('lets slow peers take turns when there are more than slots', async () => {
    await using served = await Served.start()
    const slow = Array.from({ length: 12 }, (_, i) => served.reader(`slow ${i}`, 0.6 * MiB))
    for (const reader of slow) reader.ask(2, { keep: true })
    const reader = served.reader('other', 100 * MiB)
    reader.ask(8, { keep: true })
    await served.clock.pass(20_000)
    assert(reader.done >= 8, `${reader.done} blocks in 20 s`)
    for (const { bytes } of slow) assert(bytes.first > 2 * MiB, `${bytes.first} bytes in 20 s, at ${0.6 * MiB} a second`)
  })

  it('shares a cap by peers and not by streams, where slots are short', async () => {
    await using served = await Served.start({ uploadBytesPerSecond: 24 * MiB })
    const greedy = Array.from({ length: STREAMS_PER_PEER_MAX }, () => served.reader('greedy', 50 * MiB))
    const others = Array.from({ length: 10 }, (_, i) => served.reader(`other ${i}`, 50 * MiB))
    for (const reader of [...greedy, ...others]) reader.ask(4, { keep: true })
    await served.clock.pass(20_000)
    const sum = (readers: Reader[]): number => readers.reduce((bytes, reader) => bytes + reader.bytes.first, 0)
    const share = sum(greedy) / (sum(greedy) + sum(others))
    assert(share > 1 / 16 && share < 1 / 8, `a share of ${share.toFixed(3)}; ${(1 / 11).toFixed(3)} is each one's`)
  })

  it('reads metadata when it is sent, and not to see whether it is here', async () => {
    let reads = 0
    await using served = await Served.start({}, { wrap: store => {
      const read = store.metadata.bind(store)
      store.metadata = cid => { reads++; return read(cid) }
      return store
    } })
    const reader = served.reader('one', 1 * MiB)
    reader.ask(2)
    reader.ask(200, { cid: served.sample.model.manifest.cid })
    await served.clock.pass(2_000)
    assert.deepEqual([reader.done, reads, served.server.open], [0, 0, 202])
    await served.clock.pass(20_000)
    assert.deepEqual([reader.done, reads, served.server.open], [2, 200, 0])
    assert.equal(reader.frames.filter(type => type === DATA).length, 200)
  })

  it('ends a flood of cancels of what is not open, and leaves room for those that cross with the end of a block', async () => {
    await using served = await Served.start()
    const honest = served.reader('honest', 100 * MiB)
    for (let i = 0; i < 20; i++) {
      honest.ask(4)
      await served.clock.pass(200)
      honest.cancel([1, 2, 3, 4].map(id => 4 * i + id))
    }
    assert.deepEqual([honest.done, served.violations], [80, []])
    const flood = served.reader('flood', 100 * MiB)
    const ids = Array.from({ length: 2_000 }, (_, i) => 1_000_000 + i)
    for (let i = 0; i < 5; i++) flood.cancel(ids)
    assert.deepEqual(served.violations, [])
    for (let i = 0; i < 6; i++) flood.cancel(ids)
    assert.equal(served.violations.length, 1)
  })

  it('says of metadata that cannot be read that it is not here, and goes on', async () => {
    await using served = await Served.start({}, { wrap: store => {
      store.metadata = () => { throw new DiskError('disk I/O error') }
      return store
    } })
    const reader = served.reader('one', 100 * MiB)
    reader.ask(1)
    reader.ask(1, { cid: served.sample.model.manifest.cid })
    reader.ask(2)
    await served.clock.pass(1_000)
    assert.deepEqual([reader.done, served.server.open, served.server.slotsFree], [3, 0, SERVE_SLOTS])
    assert.equal(reader.frames.filter(type => type === NOT_HERE).length, 1)
  })

  it('keeps the cap of a peer that hangs up after each block', async () => {
    const cap = 128 * KiB
    await using served = await Served.start({ peerBytesPerSecond: cap }, { blockBytes: 256 * KiB })
    let bytes = 0
    for (let second = 0; second < 30; second++) {
      const reader = served.reader('one', 100 * MiB)
      reader.ask(1)
      await served.clock.pass(1_000)
      bytes += reader.bytes.first
      served.server.drop('one', new Error('it hung up'))
    }
    assert(bytes > 20 * cap && bytes < 36 * cap, `${bytes / cap} times the cap of a second in 30 s`)
  })

  it('counts the useless cancels of a peer over all its streams', async () => {
    await using served = await Served.start()
    const ids = Array.from({ length: 2_000 }, (_, i) => 1_000_000 + i)
    for (let i = 0; i < 10; i++) {
      served.reader('one', 100 * MiB).cancel(ids)
      served.server.drop('one', new Error('it hung up'))
    }
    assert.equal(served.violations.length, 1)
  })

  for (const later of [false, true]) {
    it(`sends small pieces under a low cap, so that no peer seems dead for long (${later ? 'nobody waits' : 'somebody waits'})`, async () => {
      const cap = 64 * KiB
      await using served = await Served.start(later ? { backgroundRates: [{ from: 0, to: 1440, bytesPerSecond: cap }] } : { uploadBytesPerSecond: cap })
      const readers = Array.from({ length: 12 }, (_, i) => served.reader(`reader ${i}`, 100 * MiB))
      for (const reader of readers) reader.ask(2, { later })
      await served.clock.pass(60_000)
      for (const { pieces } of readers) {
        const gaps = [...pieces.map(({ at }) => at), 60_000].map((at, i, all) => at - (all[i - 1] ?? 0))
        assert(Math.max(...gaps) < 8_000, `nothing for ${Math.round(Math.max(...gaps))} ms`)
      }
      const sent = readers.reduce((sum, { bytes }) => sum + bytes.first + bytes.later, 0)
      assert(sent > 59 * cap && sent < 65 * cap, `${sent} bytes in a minute`)
    })
  }
})
