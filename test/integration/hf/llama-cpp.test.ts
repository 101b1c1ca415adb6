import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { MiB } from '../../../src/base/index.ts'
import { createHfServer, type HfServer } from '../../../src/hf/index.ts'
import { commitOf } from '../../../src/hf/identity.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory, writeTree } from '../../support/files.ts'

interface Answer { status: number, headers: Record<string, string>, body: Buffer }
interface Wanted { method?: string, range?: string, token?: string, leaveAfter?: number }

const JSON_TYPE = 'application/json'
const MODEL = 'tiny-Q4_K_M.gguf'
const SMALL = 'mmproj-tiny-F16.gguf'

/**
 * What llama.cpp sends with `-hf` (0.5.0: common/hf-cache.cpp and download.cpp over cpp-httplib 0.58.0), byte for byte but for the
 * port: a connection for each request, an empty Accept-Encoding but where it streams a file, no conditions. docs/decisions/0008.
 */
describe('hf: the requests of llama.cpp', function () {
  this.timeout(30_000)
  let cluster: Cluster
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  let node: ShoalNode
  let server: HfServer
  let commit: string
  const content = async (path: string): Promise<Buffer> => await readFile(join(directory.path, 'model', path))

  /** `accept` of what it parses is JSON. One that leaves early gets what came. */
  const ask = async (path: string, accept: string, { method = 'GET', range, token, leaveAfter }: Wanted = {}): Promise<Answer> => {
    const { port } = new URL(server.url ?? '')
    const streams = method === 'GET' && accept !== JSON_TYPE
    const lines = accept === JSON_TYPE
      ? [`Host: 127.0.0.1:${port}`, 'User-Agent: llama-cpp/b0-sdist', 'Accept: application/json', ...token === undefined ? [] : [`Authorization: Bearer ${token}`], 'Connection: close', 'Accept-Encoding: ']
      : [`Host: 127.0.0.1:${port}`, 'User-Agent: llama-cpp/b0-sdist', ...range === undefined ? [] : [`Range: ${range}`], 'Connection: close', 'Accept: */*', ...streams ? [] : ['Accept-Encoding: ']]
    return await new Promise((resolve, reject) => {
      const chunks: Buffer[] = []
      let bytes = 0
      const socket = connect(Number(port), '127.0.0.1', () => { socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`) })
      const end = (): void => { resolve(parse(Buffer.concat(chunks))) }
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        bytes += chunk.length
        if (leaveAfter !== undefined && bytes > leaveAfter) socket.destroy()
      })
      socket.on('close', end).on('error', reject)
    })
  }
  const file = (path: string): string => `/org/tiny-GGUF/resolve/${commit}/${path}`

  before(async () => {
    directory = await temporaryDirectory('gguf')
    await writeTree(join(directory.path, 'model'), { 'config.json': 300, [MODEL]: 5 * MiB + 7, [SMALL]: 9_000, 'sub/tiny-Q8_0-00001-of-00002.gguf': MiB + 1 })
    cluster = new Cluster({ transport: 'tcp' })
    ;[node] = await cluster.spawn(1) as [ShoalNode]
    const { cid } = await node.add(join(directory.path, 'model'), { replicas: 0 })
    await node.link({ repo: 'org/tiny-GGUF', revision: 'main' }, cid)
    commit = commitOf(cid)
    server = createHfServer({ node, host: '127.0.0.1', port: 0 })
    await server.start()
  })
  after(async () => {
    await server.stop()
    await cluster.teardown()
    await directory[Symbol.asyncDispose]()
  })

  it('finds the commit, then the files with the names that their blobs get', async () => {
    const token = `hf_${'a1'.repeat(18)}`
    const refs = await ask('/api/models/org/tiny-GGUF/refs', JSON_TYPE, { token })
    const { branches } = JSON.parse(refs.body.toString()) as { branches: Array<{ name: string, targetCommit: string }> }
    assert.deepEqual([refs.status, branches.find(({ name }) => name === 'main')?.targetCommit], [200, commit])
    const tree = await ask(`/api/models/org/tiny-GGUF/tree/${commit}?recursive=true`, JSON_TYPE)
    const files = (JSON.parse(tree.body.toString()) as Array<{ type: string, path: string, oid: string, lfs?: { oid: string } }>).filter(({ type }) => type === 'file')
    assert.deepEqual(files.map(({ path }) => path).sort(), ['config.json', SMALL, 'sub/tiny-Q8_0-00001-of-00002.gguf', MODEL].sort())
    for (const { path, oid, lfs } of files) {
      const bytes = await content(path)
      const expected = lfs === undefined ? createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex') : createHash('sha256').update(bytes).digest('hex')
      assert.equal(lfs?.oid ?? oid, expected, path)
    }
    assert.notEqual(files.find(({ path }) => path === MODEL)?.lfs, undefined)
  })

  it('is told by a head what it goes by: the size, that ranges are served, the ETag, and no way elsewhere', async () => {
    for (const path of [MODEL, SMALL]) {
      const { status, headers, body } = await ask(file(path), '*/*', { method: 'HEAD' })
      assert.deepEqual([status, headers['content-length'], headers['accept-ranges'], body.length], [200, String((await content(path)).length), 'bytes', 0])
      assert.match(headers.etag ?? '', /^"[0-9a-f]{40}([0-9a-f]{24})?"$/)
      for (const absent of ['location', 'content-encoding', 'transfer-encoding']) assert.equal(headers[absent], undefined)
      // Its own --model-url compares the ETag as it stands, quotes and all: that of a branch is that of the commit.
      assert.equal((await ask(`/org/tiny-GGUF/resolve/main/${path}`, '*/*', { method: 'HEAD' })).headers.etag, headers.etag)
    }
  })

  it('gets a file, and goes on where it was cut off', async () => {
    const bytes = await content(MODEL)
    const whole = await ask(file(MODEL), '*/*')
    assert.deepEqual([whole.status, whole.body.equals(bytes)], [200, true])
    const begun = await ask(file(MODEL), '*/*', { leaveAfter: 2 * MiB })
    assert.ok(begun.body.length >= MiB && begun.body.length < bytes.length)
    // Anything but 206 for the rest ends the download for good.
    const rest = await ask(file(MODEL), '*/*', { range: `bytes=${begun.body.length}-` })
    assert.deepEqual([rest.status, rest.headers['content-range'], rest.headers['content-length']], [206, `bytes ${begun.body.length}-${bytes.length - 1}/${bytes.length}`, String(bytes.length - begun.body.length)])
    assert.ok(Buffer.concat([begun.body, rest.body]).equals(bytes))
  })

  it('shows the words of a refusal', async () => {
    const { status, body } = await ask('/api/models/org/none/refs', JSON_TYPE)
    assert.equal(status, 404)
    assert.match((JSON.parse(body.toString()) as { error: string }).error, /nothing is linked as "org\/none"/)
  })
})

function parse (answer: Buffer): Answer {
  const at = answer.indexOf('\r\n\r\n')
  const [first = '', ...lines] = answer.subarray(0, at).toString().split('\r\n')
  return {
    status: Number(first.split(' ')[1]),
    headers: Object.fromEntries(lines.map(line => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()])),
    body: answer.subarray(at + 4)
  }
}
