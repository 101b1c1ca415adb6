import assert from 'node:assert/strict'
import { PAGE_BYTES } from '../../../src/base/index.ts'
import { Edges } from '../../../src/storage/edges.ts'

describe('Edges', () => {
  it('gives an edge to the neighbour that makes a whole page of it, once, and to no other', () => {
    const edges = new Edges()
    const bytes = Uint8Array.of(1, 2, 3)
    assert.ok(edges.keep(PAGE_BYTES, bytes))
    bytes.fill(0) // it kept a copy
    assert.equal(edges.take(PAGE_BYTES, PAGE_BYTES + 4), undefined, 'a small block lies between')
    assert.deepEqual(edges.take(PAGE_BYTES, PAGE_BYTES + 3)?.bytes, Uint8Array.of(1, 2, 3))
    assert.equal(edges.take(PAGE_BYTES, PAGE_BYTES + 3), undefined)
    assert.equal(edges.count, 0)
  })

  it('has what a failed write took along again, and tells of writes under way', async () => {
    const edges = new Edges()
    edges.keep(0, Uint8Array.of(1))
    const edge = edges.take(0, 1)
    assert.ok(edge)
    const writing = Promise.withResolvers<undefined>()
    edges.carry(writing.promise, [edge])
    assert.equal(edges.carriers().length, 1)
    assert.deepEqual(edges.takeAll(), [])
    writing.reject(new Error('no space'))
    await assert.rejects(Promise.all(edges.carriers()), { name: 'Error', message: 'no space' })
    assert.equal(edges.carriers().length, 0)
    assert.deepEqual(edges.takeAll(), [edge])
    assert.equal(edges.count, 0)
  })

  it('keeps so many and no more', () => {
    const edges = new Edges()
    while (edges.keep(edges.count * PAGE_BYTES, Uint8Array.of(1)));
    assert.equal(edges.count, 128)
    assert.equal(edges.takeAll().length, 128)
    assert.equal(edges.count, 0)
  })
})
