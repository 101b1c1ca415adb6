import assert from 'node:assert/strict'
import { Bitfield } from '../../../src/base/index.ts'
import { leaving, planEviction } from '../../../src/storage/eviction.ts'
import { DetailsCache, FileRecord, ModelRecord } from '../../../src/storage/records.ts'
import { smallModel } from '../../compliance/store-fixtures.ts'

const details = new DetailsCache(() => { throw new Error('not needed') })
const file = (key: string, size: number): FileRecord =>
  new FileRecord({ id: 1, key, size, recorded: Bitfield.full(1), presentBytes: size, guard: undefined, ownPath: undefined, details })
const { manifest } = smallModel(1).model
const model = (cid: string, usedAt: number, files: FileRecord[], flags: { pinned?: boolean, published?: boolean } = {}): ModelRecord => {
  const made = new ModelRecord({ cid, manifest, files, pinned: false, published: false, addedAt: 0, usedAt, ownDirectory: undefined, ...flags })
  for (const one of files) one.models.add(made)
  return made
}
const plan = (models: ModelRecord[], bytes: number, init: { held?: string[], kept?: string[], keep?: string[] } = {}): { models: string[], freedBytes: number } => {
  const { models: chosen, freedBytes } = planEviction({ models, isHeld: cid => init.held?.includes(cid) ?? false, isKept: cid => init.kept?.includes(cid) ?? false, keep: new Set(init.keep) }, bytes)
  return { models: chosen.map(({ cid }) => cid), freedBytes }
}

describe('planEviction', () => {
  it('takes the least recently used first, and no more than needed', () => {
    const models = [model('new', 3, [file('a', 10)]), model('old', 1, [file('b', 10)]), model('middle', 2, [file('c', 10)])]
    assert.deepEqual(plan(models, 11), { models: ['old', 'middle'], freedBytes: 20 })
    assert.deepEqual(plan(models, 0), { models: [], freedBytes: 0 })
    assert.deepEqual(plan(models, 1_000), { models: ['old', 'middle', 'new'], freedBytes: 30 })
  })

  it('never takes a pinned, published, held or kept one', () => {
    const models = [
      model('pinned', 1, [file('a', 10)], { pinned: true }), model('published', 2, [file('b', 10)], { published: true }),
      model('held', 3, [file('c', 10)]), model('kept', 4, [file('d', 10)])
    ]
    assert.deepEqual(plan(models, 10, { held: ['held'], kept: ['kept'] }), { models: [], freedBytes: 0 })
  })

  it('counts a shared file when the last model that has it goes', () => {
    const shared = file('shared', 100)
    const models = [model('one', 1, [shared, file('a', 1)]), model('two', 2, [shared, file('b', 2)])]
    assert.deepEqual(plan(models, 50), { models: ['one', 'two'], freedBytes: 103 })
  })

  it('keeps files that a model on its way in names too, and models that would free nothing', () => {
    const kept = file('kept', 100)
    const models = [model('same', 1, [kept]), model('other', 2, [file('a', 5)])]
    assert.deepEqual(plan(models, 5, { keep: ['kept'] }), { models: ['other'], freedBytes: 5 })
  })
})

describe('leaving', () => {
  const none = new Set<string>()

  it('has each file that nobody else names once, and its bytes at the last model that names it', () => {
    const [own, shared, others, kept] = [file('own', 1), file('shared', 10), file('others', 100), file('kept', 1_000)]
    const models = [model('one', 1, [own, own, shared]), model('two', 2, [shared, others, kept])]
    model('stays', 3, [others])
    assert.deepEqual(leaving(models, new Set(['kept'])), { files: [own, shared], results: [{ cid: 'one', freedBytes: 1 }, { cid: 'two', freedBytes: 10 }] })
  })

  it('looks at each model once, however many go', () => {
    let looks = 0
    const models = Array.from({ length: 300 }, (_, at) => {
      const one = model(`${at}`, at, [file(`${at}`, 1)])
      const { distinct } = one
      return Object.defineProperty(one, 'distinct', { get: () => { looks++; return distinct } })
    })
    assert.equal(leaving(models, none).files.length, 300)
    assert.equal(looks, 300)
  })
})
