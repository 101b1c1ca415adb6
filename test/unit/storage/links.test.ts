import assert from 'node:assert/strict'
import { lstat, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { linkInto, unlinkFrom } from '../../../src/storage/links.ts'
import { temporaryDirectory } from '../../compliance/store-fixtures.ts'

describe('links', () => {
  let directory: AsyncDisposable & { path: string }
  beforeEach(async () => {
    directory = await temporaryDirectory()
    await writeFile(join(directory.path, 'target'), 'content')
  })
  afterEach(async () => { await directory[Symbol.asyncDispose]() })

  const at = (...names: string[]): string => join(directory.path, ...names)

  it('are hard, made with their directories, again without a change, and in place of anything else', async () => {
    await linkInto(at('target'), at('model/a/b'))
    await linkInto(at('target'), at('model/a/b'))
    assert.equal((await stat(at('target'))).nlink, 2)
    await writeFile(at('model/c'), 'something else')
    await linkInto(at('target'), at('model/c'))
    assert.equal(await readFile(at('model/c'), 'utf8'), 'content')
    assert.equal((await stat(at('target'))).nlink, 3)
  })

  it('are symbolic where there can be no hard link (needs /dev/shm on another volume)', async function () {
    const elsewhere = await mkdtemp('/dev/shm/shoal-links-').catch(() => undefined)
    if (elsewhere === undefined || (await stat(elsewhere)).dev === (await stat(directory.path)).dev) {
      this.skip()
    }
    try {
      const path = join(elsewhere, 'model', 'file')
      await linkInto(at('target'), path)
      await linkInto(at('target'), path)
      assert.equal((await lstat(path)).isSymbolicLink(), true)
      assert.equal(await readFile(path, 'utf8'), 'content')
    } finally {
      await rm(elsewhere, { recursive: true })
    }
  })

  it('go with the directories that are empty without them', async () => {
    for (const path of ['a/b/one', 'a/b/two', 'a/three']) await linkInto(at('target'), at('model', path))
    await unlinkFrom(at('model'), 'a/b/one')
    assert.deepEqual(await readdir(at('model/a/b')), ['two'])
    await unlinkFrom(at('model'), 'a/b/two')
    assert.deepEqual(await readdir(at('model/a')), ['three'])
    await unlinkFrom(at('model'), 'a/three')
    await unlinkFrom(at('model'), 'a/three')
    assert.deepEqual(await readdir(at('model')), [])
  })
})
