import assert from 'node:assert/strict'
import fc from 'fast-check'
import { jsonPieces, jsonStream } from '../../../src/api/json-pieces.ts'

describe('api: JSON in pieces', () => {
  it('is what JSON.stringify makes of it', () => {
    const same = (value: unknown): void => { assert.equal([...jsonPieces(value)].join(''), JSON.stringify(value)) }
    fc.assert(fc.property(fc.jsonValue(), same))
    same({ a: undefined, b: [{ c: undefined }, undefined], d: null })
    same({ many: Array.from({ length: 10_001 }, (_, at) => ({ name: `"${at}"`, gone: undefined, shape: [at, 1] })) })
    same([])
    same({})
  })

  it('gives others their turn while a long one is read, and makes no more of it than is read', async () => {
    const many = Array.from({ length: 100_000 }, (_, at) => `tensor ${at}`)
    let made = 0
    const counted = { toJSON: () => { made++; return 'counted' } }
    const reader = jsonStream({ many, after: Array.from({ length: 3_000 }, () => counted) }).getReader()
    assert.ok((await reader.read()).value)
    assert.equal(made, 0)
    let turns = 0
    let ended = false
    const counting = (async () => {
      while (!ended) {
        await new Promise(resolve => { setImmediate(resolve) })
        turns++
      }
    })()
    let chunks = 1
    while (!(await reader.read()).done) chunks++
    ended = true
    await counting
    assert.equal(made, 3_000)
    assert.ok(chunks > 10 && turns >= chunks - 2, `${turns} turns for ${chunks} pieces`)
  })
})
