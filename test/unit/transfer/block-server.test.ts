import assert from 'node:assert/strict'
import { MiB } from '../../../src/base/index.ts'
import { Served } from './readers.ts'

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
    const reader = served.reader('one', 64 * MiB)
    reader.ask(8, { keep: true })
    reader.ask(8, { later: true, keep: true })
    await served.clock.pass(40_000)
    assert(reader.bytes.later >= 8 * MiB && reader.bytes.later <= 16 * MiB, `${reader.bytes.later} bytes; 10 MiB by the cap`)
  })
})
