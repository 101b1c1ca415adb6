import assert from 'node:assert/strict'
import { KiB, randomInt, seededRandom } from '../../../src/base/index.ts'
import { RingEmptier, RingFiller, type Piece } from '../../../src/transfer/lanes/ring.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'

const seed = seedOf()

describe(`the ring of a lane thread (seed ${seed})`, () => {
  it('hands on every byte in its order, over its end and over 32 bits, and never one that was not read yet', () => {
    const random = seededRandom(seed)
    const filler = new RingFiller(256 * KiB)
    const emptier = new RingEmptier(filler.memory)
    const waiting: Piece[] = []
    let written = 0
    let read = 0
    let full = 0
    while (written < 64 * 1024 * KiB) {
      const place = filler.place()
      if (place === undefined) full++
      else {
        const length = 1 + randomInt(random, Math.min(place.length, 16 * KiB))
        for (let i = 0; i < length; i += 61) place[i] = (written + i) % 251
        waiting.push(filler.fill(length))
        written += length
      }
      for (let count = place === undefined ? 1 : randomInt(random, 3); count > 0 && waiting.length > 0; count--) {
        const piece = waiting.shift() as Piece
        const bytes = emptier.view(piece)
        assert.equal(bytes.length, piece.length)
        for (let i = 0; i < bytes.length; i += 61) assert.equal(bytes[i], (read + i) % 251)
        read += piece.length
        emptier.empty(piece)
      }
    }
    assert(full > 0, 'it was never full')
  })

  it('stops its filler in time for what is decrypted already, and tells it once when there is room', () => {
    const filler = new RingFiller(256 * KiB)
    const emptier = new RingEmptier(filler.memory)
    const pieces: Piece[] = []
    const fill = (): void => {
      assert(filler.place() !== undefined)
      pieces.push(filler.fill(16 * KiB))
    }
    fill()
    while (filler.mayRead()) fill()
    for (let i = 0; i < 4; i++) fill() // what the socket had read, in the worst case
    const told = pieces.map(piece => emptier.empty(piece))
    assert.deepEqual(told.filter(each => each), [true])
    assert.equal(filler.mayRead(), true)
    fill()
    assert.equal(emptier.empty(pieces.at(-1) as Piece), false, 'nobody waits')
  })
})
