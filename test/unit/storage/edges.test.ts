import assert from 'node:assert/strict'
import { PAGE_BYTES } from '../../../src/base/index.ts'
import { Edges } from '../../../src/storage/edges.ts'

const PATH = '/a'

describe('Edges', () => {
  it('gives an edge to the neighbour that makes a whole page of it, once, and to no other', () => {
    const edges = new Edges()
    const bytes = Uint8Array.of(1, 2, 3)
    assert.ok(edges.keep(PATH, PAGE_BYTES, bytes))
    bytes.fill(0) // it kept a copy
    assert.equal(edges.take(PATH, PAGE_BYTES, PAGE_BYTES + 4), undefined, 'a small block lies between')
    assert.equal(edges.take('/b', PAGE_BYTES, PAGE_BYTES + 3), undefined)
    assert.deepEqual(edges.take(PATH, PAGE_BYTES, PAGE_BYTES + 3)?.bytes, Uint8Array.of(1, 2, 3))
    assert.equal(edges.take(PATH, PAGE_BYTES, PAGE_BYTES + 3), undefined)
    assert.equal(edges.count, 0)
  })

  it('has what a failed write took along again, and tells of writes under way', async () => {
    const edges = new Edges()
    edges.keep(PATH, 0, Uint8Array.of(1))
    const edge = edges.take(PATH, 0, 1)
    assert.ok(edge)
    const writing = Promise.withResolvers<undefined>()
    edges.carry(PATH, writing.promise, [edge])
    assert.equal(edges.carriers(PATH).length, 1)
    assert.deepEqual(edges.takeAll(PATH), [])
    writing.reject(new Error('no space'))
    await assert.rejects(Promise.all(edges.carriers(PATH)))
    assert.equal(edges.carriers(PATH).length, 0)
    assert.deepEqual(edges.takeAll(PATH), [edge])
    assert.equal(edges.count, 0)
  })

  it('keeps so many and no more, and forgets those of a file', () => {
    const edges = new Edges()
    let kept = 0
    while (edges.keep(kept % 2 === 0 ? PATH : '/b', kept * PAGE_BYTES, Uint8Array.of(1))) kept++
    assert.equal(kept, 512)
    edges.forget(PATH)
    assert.equal(edges.count, 256)
    assert.equal(edges.takeAll('/b').length, 256)
    assert.equal(edges.count, 0)
  })
})
