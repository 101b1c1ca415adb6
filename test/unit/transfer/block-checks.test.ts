import assert from 'node:assert/strict'
import { MiB, silentLogger } from '../../../src/base/index.ts'
import { hashBlock } from '../../../src/model/index.ts'
import { BlockChecks, hashThreadsFor } from '../../../src/transfer/block-checks.ts'
import { until } from '../../support/until.ts'

const THREADS = 2

function block (bytes: number, fill: number, Memory: SharedArrayBufferConstructor | ArrayBufferConstructor = SharedArrayBuffer): Uint8Array {
  return new Uint8Array(new Memory(bytes)).fill(fill)
}

async function started (): Promise<BlockChecks> {
  const checks = new BlockChecks(THREADS, silentLogger)
  const bytes = block(10, 1)
  assert.equal(await checks.check(hashBlock(bytes), bytes), true, 'before the threads are up')
  await until('the threads are up', () => checks.threads >= THREADS, { withinMs: 10_000 })
  return checks
}

describe('block checks', () => {
  it('tell right bytes from wrong ones, many at once, and answer for the block they were asked about', async () => {
    const checks = await started()
    try {
      const blocks = Array.from({ length: 40 }, (_, i) => block(Math.floor(MiB / (1 + i % 4)), i))
      const cids = blocks.map(bytes => hashBlock(bytes))
      const asked = blocks.flatMap((bytes, i) => [i, (i + 1) % blocks.length].map(of => ({ bytes, cid: cids[of] ?? hashBlock(bytes), right: of === i })))
      const answers = await Promise.all(asked.map(async ({ cid, bytes }) => await checks.check(cid, bytes)))
      assert.deepEqual(answers, asked.map(({ right }) => right))
    } finally {
      await checks.stop()
    }
  })

  it('see one wrong bit, and take memory that is not shared', async () => {
    const checks = await started()
    try {
      for (const Memory of [SharedArrayBuffer, ArrayBuffer]) {
        const bytes = block(MiB, 7, Memory)
        const cid = hashBlock(bytes)
        assert.equal(await checks.check(cid, bytes), true)
        bytes[MiB - 1] = 6
        assert.equal(await checks.check(cid, bytes), false)
      }
    } finally {
      await checks.stop()
    }
  })

  it('that are stopped have found out nothing, and say so', async () => {
    const checks = await started()
    const blocks = Array.from({ length: 20 }, (_, i) => block(4 * MiB, i))
    const cid = hashBlock(block(1, 1))
    const answers = blocks.map(async bytes => await checks.check(cid, bytes))
    await checks.stop()
    for (const answer of await Promise.all(answers)) assert.notEqual(answer, true)
    assert.equal(await checks.check(cid, block(1, 1)), undefined)
    assert.equal(checks.threads, 0)
  })

  it('have no thread on a few cores, one for each four, and a bound', () => {
    assert.deepEqual([1, 2, 4, 8, 16, 100].map(hashThreadsFor), [0, 1, 1, 2, 4, 8])
  })
})
