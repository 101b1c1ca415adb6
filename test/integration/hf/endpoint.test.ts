import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { Agent, request, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { MiB, systemClock, type ErrorJson } from '../../../src/base/index.ts'
import { createHfServer, type HfServer } from '../../../src/hf/index.ts'
import { commitOf, gitHash } from '../../../src/hf/identity.ts'
import { createNode } from '../../../src/node/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory, writeTree } from '../../support/files.ts'
import { until } from '../../support/until.ts'

interface Answer { status: number, headers: IncomingMessage['headers'], body: Buffer }

/** One request; rejects when the connection breaks before the answer is whole. */
async function ask (base: string, path: string, init: { method?: string, headers?: Record<string, string>, body?: string, onData?: (bytes: number) => void } = {}): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const sent = request(base + path, { method: init.method ?? 'GET', agent: false, headers: { ...init.headers, ...(init.body === undefined ? {} : { 'content-length': Buffer.byteLength(init.body) }) } }, answer => {
      const chunks: Buffer[] = []
      let bytes = 0
      answer.on('data', (chunk: Buffer) => { chunks.push(chunk); init.onData?.(bytes += chunk.length) })
      answer.on('end', () => { resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(chunks) }) })
      answer.on('error', reject)
    })
    sent.on('error', reject)
    sent.end(init.body)
  })
}

const json = ({ body }: Answer): Record<string, unknown> => JSON.parse(body.toString()) as Record<string, unknown>

describe('hf: the endpoint', function () {
  this.timeout(60_000)
  let cluster: Cluster
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  let publisher: ShoalNode
  let reader: ShoalNode
  let at: HfServer
  let here: HfServer
  let cid: string
  const content = async (path: string): Promise<Buffer> => await readFile(join(directory.path, 'model', path))
  const url = (server: HfServer): string => server.url ?? ''

  before(async () => {
    cluster = new Cluster({ transport: 'tcp', settings: { transfer: { stallTimeoutMs: 1_000, providerTimeoutMs: 1_500 } } })
    directory = await temporaryDirectory('hf')
    await writeTree(join(directory.path, 'model'), { 'config.json': 300, 'model.safetensors': 9 * MiB + 17, 'sub/deep/tokens.txt': MiB, 'sub/more.bin': MiB + 1, 'empty.txt': 0 })
    ;[publisher, reader] = await cluster.spawn(2) as [ShoalNode, ShoalNode]
    await cluster.connect()
    cid = (await publisher.add(join(directory.path, 'model'), { replicas: 0 })).cid
    await publisher.link({ repo: 'acme/tiny', revision: 'main' }, cid)
    await publisher.link({ repo: 'acme/tiny', revision: 'версия/2' }, cid)
    at = createHfServer({ node: publisher, host: '127.0.0.1', port: 0 })
    here = createHfServer({ node: reader, host: '127.0.0.1', port: 0, hosts: ['models.example'] })
    await Promise.all([at.start(), here.start()])
  })
  after(async () => {
    await Promise.all([at.stop(), here.stop()])
    await cluster.teardown()
    await directory[Symbol.asyncDispose]()
  })

  it('gives a file the same name in every answer', async () => {
    const commit = commitOf(cid)
    for (const path of ['config.json', 'model.safetensors', 'sub/deep/tokens.txt', 'sub/more.bin', 'empty.txt']) {
      const bytes = await content(path)
      const small = bytes.length <= MiB
      const etag = small ? gitHash('blob', bytes) : createHash('sha256').update(bytes).digest('hex')
      const head = await ask(url(at), `/acme/tiny/resolve/main/${path}`, { method: 'HEAD' })
      assert.equal(head.status, 200)
      assert.deepEqual([head.headers.etag, head.headers['x-repo-commit'], head.headers['content-length'], head.headers['accept-ranges'], head.body.length], [`"${etag}"`, commit, String(bytes.length), 'bytes', 0])
      for (const absent of ['location', 'content-encoding', 'x-xet-hash', 'x-linked-etag', 'transfer-encoding']) assert.equal(head.headers[absent], undefined)
      const [entry] = json(await ask(url(at), '/api/models/acme/tiny/paths-info/main', { method: 'POST', body: `paths=${encodeURIComponent(path)}&expand=False`, headers: { 'content-type': 'application/x-www-form-urlencoded' } })) as unknown as Array<{ oid: string, lfs?: { oid: string } }>
      assert.equal(entry?.lfs?.oid ?? entry?.oid, etag)
      assert.equal(entry?.lfs === undefined, small)
      const whole = await ask(url(at), `/acme/tiny/resolve/${commit}/${path}`)
      assert.deepEqual([whole.status, whole.headers.etag, whole.body.equals(bytes)], [200, `"${etag}"`, true])
    }
  })

  it('answers for the model, its revisions, pages of its tree, and whoever asks', async () => {
    const info = json(await ask(url(at), '/api/models/acme/tiny'))
    assert.deepEqual([info.id, info.sha, (info.siblings as unknown[]).length], ['acme/tiny', commitOf(cid), 5])
    const revision = `/api/models/acme/tiny/revision/${encodeURIComponent('версия/2')}?blobs=true`
    assert.equal(json(await ask(url(at), revision)).sha, info.sha)
    assert.deepEqual((json(await ask(url(at), '/api/models/acme/tiny/refs')).branches as Array<{ name: string, targetCommit: string }>).map(({ name, targetCommit }) => [name, targetCommit]), [['main', info.sha], ['версия/2', info.sha]])
    const paths: string[] = []
    let pages = 0
    for (let next: string | undefined = '/api/models/acme/tiny/tree/main?recursive=True&expand=False&limit=3'; next !== undefined; pages++) {
      const page: Answer = await ask(url(at), next)
      paths.push(...(json(page) as unknown as Array<{ path: string }>).map(({ path }) => path))
      const [, following] = /^<http:\/\/127\.0\.0\.1:\d+(\/[^>]*)>; rel="next"$/.exec(String(page.headers.link ?? '')) ?? []
      next = following
    }
    assert.deepEqual([pages, paths], [3, ['config.json', 'empty.txt', 'model.safetensors', 'sub', 'sub/deep', 'sub/deep/tokens.txt', 'sub/more.bin']])
    assert.equal((await ask(url(at), '/api/whoami-v2')).status, 401)
    assert.equal(json(await ask(url(at), '/api/whoami-v2', { headers: { authorization: 'Bearer x' } })).type, 'user')
    assert.deepEqual((json(await ask(url(at), '/api/models?search=TINY')) as unknown as Array<{ id: string }>).map(({ id }) => id), ['acme/tiny'])
  })

  const missing: Array<[string, string, string?]> = [
    ['RepoNotFound', '/acme/other/resolve/main/config.json'], ['RepoNotFound', '/api/models/acme/other'], ['RepoNotFound', '/cid/bafynothing/resolve/main/x'], ['RepoNotFound', '/datasets/acme/tiny/resolve/main/x'],
    ['RevisionNotFound', '/acme/tiny/resolve/v9/config.json'], ['RevisionNotFound', `/acme/tiny/resolve/${'0'.repeat(40)}/config.json`], ['RevisionNotFound', '/api/models/acme/tiny/tree/v9'],
    ['EntryNotFound', '/acme/tiny/resolve/main/nothing.json'], ['EntryNotFound', '/acme/tiny/resolve/main/sub'], ['EntryNotFound', '/acme/tiny/resolve/main/%E6%A8%A1%E5%9E%8B.bin'], ['EntryNotFound', '/api/models/acme/tiny/tree/main/nothing']
  ]
  for (const [code, path] of missing) {
    it(`${code}: ${path}`, async () => {
      for (const method of ['GET', 'HEAD']) {
        const { status, headers, body } = await ask(url(at), path, { method })
        assert.deepEqual([status, headers['x-error-code']], [404, code])
        assert.ok(String(headers['x-error-message']).length > 10)
        if (code === 'EntryNotFound' && path.startsWith('/acme')) assert.equal(headers['x-repo-commit'], commitOf(cid))
        assert.equal(method === 'HEAD' ? body.length : typeof (JSON.parse(body.toString()) as { error: unknown }).error, method === 'HEAD' ? 0 : 'string')
      }
    })
  }

  it('sends ranges, and nothing where nothing is to send', async () => {
    const bytes = await content('model.safetensors')
    const file = '/acme/tiny/resolve/main/model.safetensors'
    for (const [range, from, to] of [['bytes=0-0', 0, 1], ['bytes=100-4194400', 100, 4194401], [`bytes=${bytes.length - 5}-`, bytes.length - 5, bytes.length], ['bytes=-1048577', bytes.length - 1048577, bytes.length]] as const) {
      const { status, headers, body } = await ask(url(at), file, { headers: { range } })
      assert.deepEqual([status, headers['content-range'], headers['content-length']], [206, `bytes ${from}-${to - 1}/${bytes.length}`, String(to - from)])
      assert.ok(body.equals(bytes.subarray(from, to)))
    }
    const beyond = await ask(url(at), file, { headers: { range: `bytes=${bytes.length}-` } })
    assert.deepEqual([beyond.status, beyond.headers['content-range']], [416, `bytes */${bytes.length}`])
    const { headers: { etag = '' } } = await ask(url(at), file, { method: 'HEAD' })
    const unchanged = await ask(url(at), file, { headers: { 'if-none-match': etag } })
    assert.deepEqual([unchanged.status, unchanged.body.length, unchanged.headers.etag], [304, 0, etag])
  })

  it('describes a model that is elsewhere at once, and fetches none of it', async () => {
    const head = await ask(url(here), `/cid/${cid}/resolve/main/model.safetensors`, { method: 'HEAD' })
    assert.deepEqual([head.status, head.headers['content-length']], [200, String(9 * MiB + 17)])
    assert.equal((json(await ask(url(here), `/api/models/cid/${cid}/tree/main?recursive=true`)) as unknown as unknown[]).length, 7)
    assert.deepEqual(reader.models(), [])
  })

  it('streams what it fetches to many readers over one load, each its own range first', async () => {
    const bytes = await content('model.safetensors')
    const started: string[] = []
    const off = reader.events.on('load:started', ({ cid }) => { started.push(cid) })
    const file = `/cid/${cid}/resolve/main/model.safetensors`
    const answers = await Promise.all([
      ...Array.from({ length: 6 }, async () => await ask(url(here), file)),
      ask(url(here), file, { headers: { range: 'bytes=8388608-8388700' } }),
      ask(url(here), `/cid/${cid}/resolve/main/sub/deep/tokens.txt`)
    ])
    off()
    for (const { status, body } of answers.slice(0, 6)) assert.ok(status === 200 && body.equals(bytes))
    assert.ok(answers[6]?.body.equals(bytes.subarray(8388608, 8388701)))
    assert.ok(answers[7]?.body.equals(await content('sub/deep/tokens.txt')))
    assert.deepEqual(started, [cid])
    // The one file nobody asked for is not here.
    assert.deepEqual((await reader.show(cid)).fileList.filter(file => file.presentBlocks < file.blocks).map(({ path }) => path), ['config.json', 'sub/more.bin'])
    await until('the load ends with its readers', () => reader.transfers().length === 0)
    await reader.remove(cid)
  })

  it('fetches no more of a file than the blocks of the range that is asked for', async () => {
    const bytes = await content('model.safetensors')
    const { status, body } = await ask(url(here), `/cid/${cid}/resolve/main/model.safetensors`, { headers: { range: 'bytes=8388608-8388700' } })
    assert.ok(status === 206 && body.equals(bytes.subarray(8388608, 8388701)))
    await until('the load ends with its reader', () => reader.transfers().length === 0)
    const file = (await reader.show(cid)).fileList.find(({ path }) => path === 'model.safetensors')
    assert.deepEqual([file?.presentBlocks, file?.blocks], [1, 3])
    await reader.remove(cid)
  })

  it('stops fetching when the reader goes', async () => {
    const agent = new Agent()
    const model = join(directory.path, 'large')
    await writeTree(model, { 'w.bin': 64 * MiB }, 7)
    const large = (await publisher.add(model, { replicas: 0, inPlace: true })).cid
    await new Promise<void>((resolve, reject) => {
      const sent = request(`${url(here)}/cid/${large}/resolve/main/w.bin`, { agent }, answer => {
        answer.once('data', () => { sent.destroy(); resolve() })
        answer.on('error', () => undefined)
      })
      sent.on('error', reject)
      sent.end()
    })
    await until('nobody loads', () => reader.transfers().length === 0)
    await reader.remove(large)
    await publisher.remove(large)
  })

  it('keeps bytes flowing while a slow block comes, and cuts the connection when the rest is nowhere', async () => {
    const model = join(directory.path, 'lost')
    await writeTree(model, { 'w.bin': 24 * MiB }, 8)
    const [holder] = await cluster.spawn(1, () => ({ settings: { transfer: { uploadBytesPerSecond: 4 * MiB } } })) as [ShoalNode]
    await cluster.connect([holder, reader])
    const lost = (await holder.add(model, { replicas: 0 })).cid
    // Its patience is a twentieth: a block that takes a second is as one of twenty.
    const hasty = createHfServer({ node: reader, host: '127.0.0.1', port: 0, clock: { ...systemClock, setTimeout: (work, delayMs) => systemClock.setTimeout(work, delayMs / 20) } })
    await hasty.start()
    let killed: Promise<void> | undefined
    let received = 0
    let last = 0
    let silence = 0
    try {
      await assert.rejects(ask(url(hasty), `/cid/${lost}/resolve/main/w.bin`, {
        onData: bytes => {
          const now = performance.now()
          if (last > 0 && killed === undefined) silence = Math.max(silence, now - last)
          last = now
          received = bytes
          if (bytes > 5 * MiB) killed ??= cluster.kill(holder)
        }
      }), { code: 'ECONNRESET' })
      await killed
      assert.ok(received > 5 * MiB && received < 24 * MiB, `${received} bytes`)
      // A block takes a second; drops come every 100 ms.
      assert.ok(silence < 700, `nothing for ${silence} ms`)
      const again = await ask(url(here), `/cid/${lost}/resolve/main/w.bin`, { headers: { range: `bytes=${24 * MiB - 1}-` } })
      assert.deepEqual([again.status, again.headers['x-error-message'] !== undefined], [504, true])
    } finally {
      await hasty.stop()
    }
    await reader.remove(lost)
  })

  it('says that nobody has a model, in a way clients come back for', async () => {
    const nowhere = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'
    const { status, headers, body } = await ask(url(here), `/cid/${nowhere}/resolve/main/x`)
    assert.deepEqual([status, headers['x-error-code'], typeof (JSON.parse(body.toString()) as { error: ErrorJson }).error], [504, undefined, 'string'])
  })

  it('fetches again what it held and finds spoiled', async () => {
    const model = join(directory.path, 'spoiled')
    await writeTree(model, { 'w.bin': 6 * MiB }, 9)
    const bytes = await readFile(join(model, 'w.bin'))
    const spoiled = (await publisher.add(model, { replicas: 0 })).cid
    await reader.add(model, { inPlace: true, replicas: 0 })
    await truncate(join(model, 'w.bin'), 5 * MiB)
    const { status, body } = await ask(url(here), `/cid/${spoiled}/resolve/main/w.bin`)
    assert.deepEqual([status, body.equals(bytes)], [200, true])
  })

  it('keeps its links over a restart, and a damaged list is not taken for none', async () => {
    const dataDirectory = join(directory.path, 'linked')
    const settings = { listen: ['/ip4/127.0.0.1/tcp/0'] }
    const first = await createNode({ dataDirectory, settings })
    await Promise.all(['main', 'v1', 'v2'].map(async revision => await first.link({ repo: 'a/b', revision }, cid)))
    await first.unlink({ repo: 'a/b', revision: 'v1' })
    await assert.rejects(first.unlink({ repo: 'a/b', revision: 'v1' }), { name: 'LinkNotFoundError' })
    await assert.rejects(first.link({ repo: 'a/b', revision: 'x' }, 'bafynothing'), { name: 'InvalidCidError' })
    await assert.rejects(first.link({ repo: 'cid/b', revision: 'x' }, cid), { name: 'InvalidRepoNameError' })
    await first.stop()
    const second = await createNode({ dataDirectory, settings })
    assert.deepEqual(second.links().map(({ repo, revision, cid }) => [repo, revision, cid]), [['a/b', 'main', cid], ['a/b', 'v2', cid]])
    await second.stop()
    const file = join(dataDirectory, 'links.json')
    for (const damage of ['', '{', '{"version":2,"links":[]}', '{"version":1,"links":[{}]}', `{"version":1,"links":[{"repo":"../x","revision":"main","cid":"${cid}","linkedAt":1}]}`]) {
      await writeFile(file, damage)
      await assert.rejects(createNode({ dataDirectory, settings }), { name: 'DiskError' })
    }
    await rm(file)
    await (await createNode({ dataDirectory, settings })).stop()
  })

  it('adds what links of a cache lead to, and nothing outside it', async () => {
    const cache = join(directory.path, 'cache')
    await mkdir(join(cache, 'blobs'), { recursive: true })
    await mkdir(join(cache, 'snapshots', 'one'), { recursive: true })
    await writeFile(join(cache, 'blobs', 'x'), 'content')
    await writeFile(join(directory.path, 'secret'), 'secret')
    await symlink('../../blobs/x', join(cache, 'snapshots', 'one', 'x.txt'))
    const options = { inPlace: true, followWithin: [join(cache, 'blobs')], replicas: 0 }
    const { cid: added } = await publisher.add(join(cache, 'snapshots', 'one'), options)
    assert.equal((await ask(url(at), `/cid/${added}/resolve/main/x.txt`)).body.toString(), 'content')
    for (const target of ['../../../secret', '/etc/hostname', '../../blobs', '../../blobs/../../secret', '../../blobs-x/y']) {
      await rm(join(cache, 'snapshots', 'one', 'evil'), { force: true })
      await symlink(target, join(cache, 'snapshots', 'one', 'evil'))
      await assert.rejects(publisher.add(join(cache, 'snapshots', 'one'), options), (error: Error) => ['SymbolicLinkError', 'UnreadableSourceError'].includes(error.name))
    }
  })
})
