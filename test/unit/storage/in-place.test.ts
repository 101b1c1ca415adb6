import assert from 'node:assert/strict'
import { rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { HandlePool } from '../../../src/storage/handles.ts'
import { GuardBrokenError, readGuarded } from '../../../src/storage/in-place.ts'
import type { FileGuard } from '../../../src/storage/store.ts'
import { temporaryDirectory } from '../../compliance/store-fixtures.ts'

describe('readGuarded', () => {
  let directory: AsyncDisposable & { path: string }
  let pool: HandlePool
  let path: string

  beforeEach(async () => {
    directory = await temporaryDirectory()
    pool = new HandlePool(3)
    path = join(directory.path, 'file')
    await writeFile(path, 'one')
  })
  afterEach(async () => {
    await pool.close()
    await directory[Symbol.asyncDispose]()
  })

  const guardOf = async (): Promise<FileGuard> => {
    const { size, mtimeMs, ino } = await stat(path)
    return { path, size, mtimeMs, ino }
  }
  const read = async (guard: FileGuard): Promise<string> => {
    const into = Buffer.alloc(3)
    await readGuarded(pool, guard, 0, into)
    return into.toString()
  }

  it('reads the file of the guard, not one that is still open under its path', async () => {
    assert.equal(await read(await guardOf()), 'one')
    await writeFile(`${path}.new`, 'two')
    await rename(`${path}.new`, path)
    assert.equal(await read(await guardOf()), 'two')
  })

  it('does not keep a deleted file open', async () => {
    const guard = await guardOf()
    await read(guard)
    assert.equal(pool.size, 1)
    await rm(path)
    await assert.rejects(read(guard), GuardBrokenError)
    assert.equal(pool.size, 0)
  })
})
