import assert from 'node:assert/strict'
import { UPSTREAM_FILES_KNOWN_MAX } from '../../../src/base/index.ts'
import { KnownModels } from '../../../src/origin/known-model.ts'
import type { UpstreamFile, UpstreamModel } from '../../../src/origin/types.ts'

const HALF = UPSTREAM_FILES_KNOWN_MAX / 2
const many = Array.from({ length: HALF }, (_, i): UpstreamFile => ({ path: String(i), size: 1, oid: 'a'.repeat(40), sha256: undefined }))
const model = (repo: string, files: number, foreign?: number): UpstreamModel =>
  ({ repo, commit: 'c'.repeat(40), restricted: false, files: many.slice(0, files), foreign: foreign === undefined ? undefined : many.slice(0, foreign) })

describe('origin: known models', () => {
  const known = (models: KnownModels, repos: string[]): boolean[] => repos.map(repo => models.get(repo, 'c'.repeat(40)) !== undefined)

  it('one that goes takes its own files out of the count, not those of the one that comes', () => {
    const models = new KnownModels()
    models.keep(model('a', HALF, HALF - 10))
    for (const repo of ['b', 'c', 'd']) models.keep(model(repo, 100))
    assert.deepEqual(known(models, ['a', 'b', 'c', 'd']), [false, true, true, true])
    models.keep(model('e', HALF, 10))
    assert.deepEqual(known(models, ['b', 'c', 'd', 'e']), [true, true, true, true])
  })

  it('files that the upstream tells of later count as well', () => {
    const models = new KnownModels()
    models.keep(model('a', 10))
    models.keep(model('b', HALF))
    models.learn(model('b', HALF, HALF - 50))
    assert.deepEqual(known(models, ['a', 'b']), [true, true])
    models.keep(model('c', 100))
    assert.deepEqual(known(models, ['b', 'c']), [false, true])
    models.learn(model('c', 100))
    models.keep(model('d', HALF, HALF - 200))
    assert.deepEqual(known(models, ['c', 'd']), [true, true])
  })
})
