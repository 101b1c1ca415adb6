import assert from 'node:assert/strict'
import fc from 'fast-check'
import { readLines } from '../../../src/api/lines.ts'

async function * pieces (bytes: Buffer, cuts: number[]): AsyncGenerator<Buffer> {
  let from = 0
  for (const to of [...cuts.filter(cut => cut <= bytes.length).sort((a, b) => a - b), bytes.length]) {
    yield bytes.subarray(from, to)
    from = to
  }
}

describe('api: lines', () => {
  it('are the same however the bytes arrive', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.string({ unit: 'grapheme' })), fc.array(fc.nat(500)), fc.boolean(), async (texts, cuts, ended) => {
      const lines = texts.map(text => text.replaceAll('\n', ' '))
      const bytes = Buffer.from(lines.join('\n') + (ended ? '\n' : ''))
      const read: string[] = []
      for await (const line of readLines(pieces(bytes, cuts), 10_000)) read.push(line)
      assert.deepEqual(read, lines.filter(line => line !== ''))
    }))
  })

  it('are bounded, ended or not', async () => {
    const read = async (text: string, cuts: number[]): Promise<void> => { for await (const line of readLines(pieces(Buffer.from(text), cuts), 10)) assert.ok(line.length <= 10) }
    await read('0123456789\n0123456789', [3, 7])
    await assert.rejects(read('0123456789a\n', [3, 7]), { name: 'ApiError' })
    await assert.rejects(read('0123456789a', [3, 7]), { name: 'ApiError' })
    await assert.rejects(read('x\n0123456789a', []), { name: 'ApiError' })
  })
})
