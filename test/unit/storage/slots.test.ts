import assert from 'node:assert/strict'
import { BLOCK_BYTES_MAX, PAGE_BYTES } from '../../../src/base/index.ts'
import { hashBlock } from '../../../src/model/index.ts'
import { SlotPool, type Slot } from '../../../src/storage/index.ts'

describe('SlotPool', () => {
  it('lays a block out at its offset modulo a page, at any offset and size', () => {
    const slot = new SlotPool(1).tryAcquire()
    assert.ok(slot)
    assert.equal(slot.slab.byteOffset % PAGE_BYTES, 0)
    for (const offset of [0, 1, PAGE_BYTES - 1, PAGE_BYTES, 7_777_777_777]) {
      const bytes = slot.prepare(offset, BLOCK_BYTES_MAX)
      assert.equal(bytes.length, BLOCK_BYTES_MAX)
      assert.equal(bytes.byteOffset % PAGE_BYTES, offset % PAGE_BYTES)
    }
    assert.throws(() => slot.prepare(0, BLOCK_BYTES_MAX + 1), RangeError)
  })

  it('hands out as many as it has, the rest in turn, and forgets who gave up', () => {
    const pool = new SlotPool(2)
    const got: string[] = []
    const slots: Slot[] = []
    for (const name of ['a', 'b', 'c', 'd', 'e']) {
      const cancel = pool.acquire(slot => { got.push(name); slots.push(slot) })
      if (name === 'd') cancel()
    }
    assert.deepEqual(got, ['a', 'b'])
    assert.equal(pool.tryAcquire(), undefined)
    slots[0]?.release()
    assert.deepEqual(got, ['a', 'b', 'c'])
    slots[1]?.release()
    assert.deepEqual(got, ['a', 'b', 'c', 'e'])
    for (const slot of slots) slot.release() // some for the second time: nobody has them now, so nothing happens
    assert.equal(pool.free, 2)
  })

  it('leaves slots to others while who waits yields, and serves it when it does not', () => {
    const pool = new SlotPool(2)
    const got: string[] = []
    const slots: Slot[] = []
    let yields = true
    pool.acquire(slot => { got.push('yields'); slots.push(slot) }, () => yields)
    assert.deepEqual([got, pool.free, pool.waiting], [[], 2, 1])
    for (const name of ['a', 'b', 'c']) pool.acquire(slot => { got.push(name); slots.push(slot) })
    assert.deepEqual(got, ['a', 'b'])
    slots[0]?.release()
    slots[1]?.release()
    pool.serve()
    assert.deepEqual([got, pool.free, pool.waiting], [['a', 'b', 'c'], 1, 1])
    yields = false
    pool.serve()
    assert.deepEqual([got, pool.free, pool.waiting], [['a', 'b', 'c', 'yields'], 0, 0])
    for (const slot of slots) slot.release()
    assert.equal(pool.free, 2)
  })

  it('shares memory with other threads when asked to', () => {
    const shared = new SlotPool(1, { shared: true }).tryAcquire()
    assert.ok(shared)
    assert.ok(shared.slab.buffer instanceof SharedArrayBuffer)
    shared.prepare(5, 3).set([1, 2, 3])
    assert.equal(hashBlock(shared.bytes).toString(), hashBlock(Uint8Array.of(1, 2, 3)).toString())
  })

  it('refuses to have no slots', () => {
    assert.throws(() => new SlotPool(0), RangeError)
  })
})
