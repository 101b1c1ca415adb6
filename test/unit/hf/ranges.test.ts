import assert from 'node:assert/strict'
import fc from 'fast-check'
import { answerFor, type RangeHeaders } from '../../../src/hf/ranges.ts'

const ETAG = 'a'.repeat(64)
const SIZE = 1_000
const ask = (headers: RangeHeaders, size = SIZE, method = 'GET'): string => {
  const answer = answerFor(method, headers, { etag: ETAG, size })
  return 'range' in answer ? `${answer.status} ${answer.range.offset}+${answer.range.length}` : String(answer.status)
}

describe('hf: ranges and conditions', () => {
  const ranges: Array<[string, string, number?]> = [
    ['bytes=0-99', '206 0+100'], ['bytes=0-', '206 0+1000'], ['bytes=999-', '206 999+1'], ['bytes=-1', '206 999+1'], ['bytes=-2000', '206 0+1000'], ['bytes=500-5000', '206 500+500'],
    ['Bytes=1-1', '206 1+1'], ['bytes= 1 - 2', '206 1+2'], ['bytes=1000-', '416'], ['bytes=1000-1001', '416'], ['bytes=-0', '416'], ['bytes=9999999999999999-', '416'],
    ['bytes=5-4', '200 0+1000'], ['bytes=', '200 0+1000'], ['bytes=-', '200 0+1000'], ['bytes=a-b', '200 0+1000'], ['bytes=0-1,5-6', '200 0+1000'], ['lines=0-1', '200 0+1000'], ['0-1', '200 0+1000'],
    ['bytes=--1', '200 0+1000'], ['bytes=1.5-2', '200 0+1000'], ['bytes=0x1-', '200 0+1000'], ['bytes=99999999999999999-', '200 0+1000'], ['bytes=0-0', '416', 0], ['bytes=-5', '416', 0]
  ]
  for (const [range, answer, size] of ranges) it(`${range} of ${size ?? SIZE}: ${answer}`, () => { assert.equal(ask({ range }, size), answer) })

  it('ranges are for GET alone', () => { assert.equal(ask({ range: 'bytes=0-1' }, SIZE, 'HEAD'), '200 0+1000') })

  it('conditions go by the tag', () => {
    assert.equal(ask({ 'if-none-match': `"${ETAG}"` }), '304')
    assert.equal(ask({ 'if-none-match': `"x", W/"${ETAG}"`, range: 'bytes=0-1' }), '304')
    assert.equal(ask({ 'if-none-match': '*' }), '304')
    assert.equal(ask({ 'if-none-match': '"x"' }), '200 0+1000')
    assert.equal(ask({ 'if-match': '"x"' }), '412')
    assert.equal(ask({ 'if-match': `"${ETAG}"`, range: 'bytes=1-1' }), '206 1+1')
    assert.equal(ask({ 'if-range': `"${ETAG}"`, range: 'bytes=1-1' }), '206 1+1')
    assert.equal(ask({ 'if-range': `W/"${ETAG}"`, range: 'bytes=1-1' }), '200 0+1000')
    assert.equal(ask({ 'if-range': 'Sat, 21 Nov 2026 00:00:00 GMT', range: 'bytes=1-1' }), '200 0+1000')
  })

  it('never reach beyond the file, whatever is asked', () => {
    const text = fc.oneof(fc.string(), fc.tuple(fc.integer({ min: 0 }), fc.integer({ min: 0 })).map(([a, b]) => `bytes=${a}-${b}`), fc.integer().map(n => `bytes=${n}`), fc.integer({ min: 0 }).map(n => `bytes=${n}-`))
    fc.assert(fc.property(text, fc.integer({ min: 0, max: 5_000 }), (range, size) => {
      const answer = answerFor('GET', { range }, { etag: ETAG, size })
      if (!('range' in answer)) return
      assert.ok(answer.range.offset >= 0 && answer.range.length >= 0 && answer.range.offset + answer.range.length <= size)
      if (answer.status === 206) assert.ok(answer.range.length > 0)
    }))
  })
})
