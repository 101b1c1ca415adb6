import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { commitOf, gitHash, identityOf } from '../../../src/hf/identity.ts'
import { ggufFor, modelInfo, pathsInfo, treeOf } from '../../../src/hf/listing.ts'
import { hashMetadata } from '../../../src/model/index.ts'
import type { DescribedFile, ModelDescription } from '../../../src/node/types.ts'
import { temporaryDirectory } from '../../support/files.ts'

const LARGE = 2 ** 20 + 1
const hex = (algorithm: string, content: string | Buffer): string => createHash(algorithm).update(content).digest('hex')

function described (contents: Record<string, string>): ModelDescription {
  const files = Object.entries(contents).map(([path, content]): DescribedFile => ({
    path, size: Buffer.byteLength(content), sha256: hex('sha256', content), gitSha1: gitHash('blob', Buffer.from(content))
  })).sort((a, b) => (a.path < b.path ? -1 : 1))
  return { cid: hashMetadata(Buffer.from('model')).toString(), files }
}

const MODEL = described({ 'config.json': '{}', 'a/b.txt': 'b', 'a/c/d.txt': 'd', 'a.txt': 'a', 'a-b/x': 'x', 'z/y/x/w': 'w' })
const RESOLVED = { repo: 'acme/tiny',  commit: commitOf(MODEL.cid), linkedAt: 0, from: { kind: 'model' as const, cid: MODEL.cid } }
const paths = (entries: ReadonlyArray<{ path: string }>): string[] => entries.map(({ path }) => path)

describe('hf: identities', () => {
  it('of small files are what git says, of large ones what git-lfs does', () => {
    assert.equal(identityOf({ size: 0, sha256: hex('sha256', ''), gitSha1: gitHash('blob', Buffer.alloc(0)) }).etag, 'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391') // git's empty blob
    const sha256 = '4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393' // the example of git-lfs, docs/spec.md
    const { etag, oid, lfs } = identityOf({ size: 12345, sha256, gitSha1: undefined })
    assert.equal(etag, sha256)
    assert.equal(oid, hex('sha1', `blob 130\0version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize 12345\n`))
    assert.deepEqual(lfs, { sha256, size: 12345, pointerSize: 130 })
  })

  it('of a small file that was published without its git SHA-1 go by SHA-256', () => {
    assert.equal(identityOf({ size: 2, sha256: 'f'.repeat(64), gitSha1: undefined }).etag, 'f'.repeat(64))
  })

  it('of commits are 40 digits that follow from the CID', () => {
    assert.match(commitOf(MODEL.cid), /^[0-9a-f]{40}$/)
    assert.equal(commitOf(MODEL.cid), Buffer.from(hashMetadata(Buffer.from('model')).multihash.digest).toString('hex').slice(0, 40))
  })
})

describe('hf: listings', () => {
  it('name directories as git does', async function () {
    await using directory = await temporaryDirectory('git')
    const git = (...args: string[]): string => execFileSync('git', args, { cwd: directory.path, encoding: 'utf8', env: { PATH: process.env.PATH ?? '', HOME: directory.path, GIT_CONFIG_NOSYSTEM: '1' } })
    for (const [path, content] of Object.entries({ 'config.json': '{}', 'a/b.txt': 'b', 'a/c/d.txt': 'd', 'a.txt': 'a', 'a-b/x': 'x', 'z/y/x/w': 'w' })) {
      await mkdir(dirname(join(directory.path, path)), { recursive: true })
      await writeFile(join(directory.path, path), content)
    }
    git('init', '--quiet')
    git('add', '.')
    const listed = git('ls-tree', '-r', '-t', git('write-tree').trim()).trim().split('\n').map(line => line.split(/\s+/)).map(([, type, oid, path]) => `${type ?? ''} ${oid ?? ''} ${path ?? ''}`)
    const own = treeOf(MODEL, '', { recursive: true }).map(({ type, oid, path }) => `${type === 'file' ? 'blob' : 'tree'} ${oid} ${path}`)
    assert.deepEqual(own.sort(), listed.sort())
  })

  it('show one level, or all below', () => {
    assert.deepEqual(paths(treeOf(MODEL, '', { recursive: false })), ['a', 'a-b', 'a.txt', 'config.json', 'z'])
    assert.deepEqual(paths(treeOf(MODEL, 'a', { recursive: false })), ['a/b.txt', 'a/c'])
    assert.deepEqual(paths(treeOf(MODEL, 'a', { recursive: true })), ['a/b.txt', 'a/c', 'a/c/d.txt'])
    for (const path of ['b', 'a/b.txt', '..', 'a/', 'config.jso']) assert.throws(() => treeOf(MODEL, path, { recursive: true }), { status: 404, code: 'EntryNotFound' })
  })

  it('tell of paths what is there', () => {
    assert.deepEqual(paths(pathsInfo(MODEL, ['a', 'a.txt', 'nothing', 'a/c/', '../x'])), ['a', 'a.txt', 'a/c'])
  })

  it('agree with each other about every file', () => {
    const model: ModelDescription = { ...MODEL, files: [...MODEL.files, { path: 'zz.bin', size: LARGE, sha256: 'e'.repeat(64), gitSha1: undefined }] }
    const info = modelInfo(RESOLVED, model, { blobs: true, securityStatus: false, expand: [] })
    const siblings = info.siblings as Array<{ rfilename: string, blobId: string, size: number, lfs?: { sha256: string } }>
    for (const entry of treeOf(model, '', { recursive: true })) {
      if (entry.type === 'directory') continue
      const sibling = siblings.find(({ rfilename }) => rfilename === entry.path)
      assert.deepEqual([sibling?.blobId, sibling?.size, sibling?.lfs?.sha256], [entry.oid, entry.size, entry.lfs?.oid])
    }
    assert.equal(info.usedStorage, model.files.reduce((sum, { size }) => sum + size, 0))
  })

  it('give of a model what is asked for', () => {
    assert.deepEqual(Object.keys(modelInfo(RESOLVED, MODEL, { blobs: false, securityStatus: false, expand: ['sha', 'nothing'] })), ['_id', 'id', 'modelId', 'sha'])
    assert.deepEqual((modelInfo(RESOLVED, MODEL, { blobs: false, securityStatus: true, expand: [] })).securityRepoStatus, { scansDone: false, filesWithIssues: [] })
  })

  it('find the GGUF file that is meant', () => {
    const model = described({ 'm-Q4_K_M.gguf': '1', 'm-Q8_0.gguf': '2', 'mmproj-f16.gguf': '3', 'big/m-F16-00001-of-00002.gguf': '4', 'big/m-F16-00002-of-00002.gguf': '5', 'x.bin': '6' })
    assert.equal(ggufFor(model, 'latest').path, 'm-Q4_K_M.gguf')
    assert.equal(ggufFor(model, 'q8_0').path, 'm-Q8_0.gguf')
    assert.equal(ggufFor(model, 'F16').path, 'big/m-F16-00001-of-00002.gguf')
    assert.throws(() => ggufFor(model, 'Q2_K'), { code: 'EntryNotFound' })
    assert.throws(() => ggufFor(MODEL, 'latest'), { code: 'EntryNotFound' })
  })
})
