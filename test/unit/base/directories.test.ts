import assert from 'node:assert/strict'
import { mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeDirectories } from '../../../src/base/index.ts'

describe('making directories', () => {
  let root: string
  beforeEach(async () => { root = await mkdtemp(join(tmpdir(), 'shoal-directories-')) })
  afterEach(async () => { await rm(root, { recursive: true }) })

  it('makes all that are missing, with their mode, and is content with what is there', async () => {
    const path = join(root, 'a', 'b', 'c')
    await Promise.all([makeDirectories(path, { mode: 0o700 }), makeDirectories(join(root, 'a', 'b', 'd'), { mode: 0o700 })])
    for (const each of [join(root, 'a'), join(root, 'a', 'b'), path]) assert.equal((await stat(each)).mode & 0o777, 0o700)
    await makeDirectories(path)
    await symlink(path, join(root, 'link'))
    await makeDirectories(join(root, 'link', 'd'))
    assert.ok((await stat(join(path, 'd'))).isDirectory())
  })

  it('throws the system\'s error where something else is, or nothing can be', async () => {
    await writeFile(join(root, 'file'), '')
    await assert.rejects(makeDirectories(join(root, 'file')), { code: 'EEXIST' })
    await assert.rejects(makeDirectories(join(root, 'file', 'a', 'b')), { code: 'EEXIST' })
    await symlink(join(root, 'nowhere'), join(root, 'dangling'))
    await assert.rejects(makeDirectories(join(root, 'dangling')), { code: 'EEXIST' })
    await assert.rejects(makeDirectories('/proc/x/y'), { code: 'ENOENT' })
  })
})
