import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { silentLogger } from '../../../src/base/index.ts'
import { fileStore, load, smallModel } from '../../compliance/store-fixtures.ts'
import { onDisk } from './on-disk.ts'

const run = promisify(execFile)

describe('files: what is not of a store\'s making', () => {
  const disk = onDisk()
  const { at } = disk

  for (const name of ['models/llama/model.bin', 'files/thesis.txt', 'tmp/work.txt', 'meta/notes.json']) {
    it(`refuses a directory that is somebody else's, and touches nothing of it: ${name}`, async () => {
      const theirs = at('srv')
      await writeAt(join(theirs, name))
      const error = await fileStore(theirs).start().then(() => assert.fail('it started'), (error: Error) => error)
      assert.equal(error.name, 'StoreVersionError')
      assert.match(error.message, new RegExp(`holds ${join(theirs, name.split('/').slice(0, 2).join('/'))}, .* another --data directory`))
      assert.deepEqual(await readdir(theirs), [name.split('/')[0]])
      assert.equal(await readFile(join(theirs, name), 'utf8'), 'theirs')
    })
  }

  it('takes a directory whose own are there and empty, or the roots of new volumes', async () => {
    for (const name of ['files/lost+found', 'models', 'tmp', 'meta']) await mkdir(at('srv', name), { recursive: true })
    const store = fileStore(at('srv'))
    await store.start()
    await store.stop()
    assert.deepEqual(await readdir(at('srv', 'files')), ['lost+found'])
  })

  it('is told at the start, and stays', async () => {
    const { cid } = smallModel(53)
    const theirs = ['files/thesis.txt', 'models/my-llama/model.bin', 'meta/notes.json', 'tmp/work.txt', `files/${cid}/model.bin`, 'tmp/import-0123456789abcdef01234567/a']
    const told: object[] = []
    await disk.store.stop()
    for (const name of theirs) await writeAt(at(name))
    await writeAt(at('tmp/import-0123456789abcdef0123456f'))
    const store = fileStore(disk.directory, { logger: { ...silentLogger, warn: details => { told.push(details) } } })
    await store.start()
    assert.deepEqual(await store.gc(), { removed: [], freedBytes: 0, leftoverBytes: 0 })
    await store.stop()
    for (const name of theirs) assert.equal(await readFile(at(name), 'utf8'), 'theirs')
    assert.deepEqual(await readdir(at('tmp')), ['import-0123456789abcdef01234567', 'work.txt'])
    assert.equal(told.length, 1)
    assert.deepEqual(told.map(details => (details as { count: number }).count), [6])
  })

  it('or cannot be deleted keeps no leftover from going, nor a model from being evicted', async function () {
    const [stuck, gone] = [smallModel(54), smallModel(55)]
    const cached = smallModel(56)
    await disk.store.stop()
    const store = fileStore(disk.directory, { settings: { quota: cached.bytes + 1_000 } })
    await store.start()
    await load(store, cached)
    for (const { cid } of [stuck, gone]) {
      await mkdir(at('models', cid))
      await writeFile(at('models', cid, 'model.bin'), Buffer.alloc(10_000))
    }
    const release = await makeUndeletable(at('models', stuck.cid))
    if (release === undefined) this.skip()
    try {
      await store.putModel(smallModel(57).model)
      assert.deepEqual(store.models().map(({ cid }) => cid), [smallModel(57).cid])
      assert.deepEqual(await readdir(at('models')), [stuck.cid])
      assert.equal((await store.gc()).leftoverBytes, 0)
    } finally {
      await release()
      await store.stop()
    }
  })
})

async function writeAt (path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, 'theirs')
}

/** By a file that nobody may delete, not even root. Undefined where that cannot be. */
async function makeUndeletable (directory: string): Promise<(() => Promise<void>) | undefined> {
  const path = join(directory, 'model.bin')
  if (process.getuid?.() !== 0) {
    await chmod(directory, 0o555)
    return async () => { await chmod(directory, 0o755) }
  }
  return await run('chattr', ['+i', path]).then(() => async () => { await run('chattr', ['-i', path]) }, () => undefined)
}
