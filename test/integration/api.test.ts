import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { access, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { request, type IncomingHttpHeaders } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ApiClient, createApiServer, type ApiServer, type ApiServerInit } from '../../src/api/index.ts'
import * as schemas from '../../src/api/schemas.ts'
import { API_BODY_BYTES_MAX, API_CONNECTIONS_MAX, MiB, asError } from '../../src/base/index.ts'
import type { LoadProgress, ShoalNode } from '../../src/node/types.ts'
import { Cluster } from '../support/cluster.ts'
import { until } from '../support/until.ts'

const TOKEN = 'a token of this test'.replaceAll(' ', '-')
const NOWHERE = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'

interface Answer { status: number, headers: IncomingHttpHeaders, text: string }

/** A request as anybody might send it. */
async function ask (where: { socketPath: string } | { port: number }, path: string, init: { method?: string, headers?: Record<string, string>, body?: string | Buffer } = {}): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const sent = request({ ...where, host: '127.0.0.1', path, method: init.method ?? 'GET', headers: { host: 'localhost', ...init.headers }, agent: false }, answer => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', reject)
      answer.on('end', () => { resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text: Buffer.concat(chunks).toString() }) })
    })
    sent.on('error', reject)
    sent.end(init.body)
  })
}

describe('api', () => {
  let root = ''
  let cluster = new Cluster()
  const servers: ApiServer[] = []
  let sockets = 0

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-api-'))
    await mkdir(join(root, 'model'))
    await writeFile(join(root, 'model', 'config.json'), '{}')
    await writeFile(join(root, 'model', 'weights.bin'), randomBytes(12 * MiB))
  })
  after(async () => { await rm(root, { recursive: true, force: true }) })
  beforeEach(() => { cluster = new Cluster({ transport: 'tcp' }) })
  afterEach(async () => {
    await Promise.all(servers.splice(0).map(async server => { await server.stop() }))
    await cluster.teardown()
  })

  async function serve (node: ShoalNode, init: Partial<ApiServerInit> = {}): Promise<{ server: ApiServer, client: ApiClient, socketPath: string }> {
    const server = createApiServer({ node, socketPath: join(root, `${sockets++}.sock`), ...init })
    await server.start()
    servers.push(server)
    return { server, socketPath: server.socketPath, client: new ApiClient({ socketPath: server.socketPath }) }
  }

  async function one (init: Partial<ApiServerInit> = {}): Promise<{ node: ShoalNode, server: ApiServer, client: ApiClient, socketPath: string }> {
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    return { node, ...await serve(node, init) }
  }

  /** A publisher that sends slowly, and a loader connected to it; the model takes two to three seconds. */
  async function slowPair (): Promise<{ cid: string, loader: ShoalNode, client: ApiClient, server: ApiServer }> {
    const [publisher, loader] = await cluster.spawn(2, position => position === 0 ? { settings: { transfer: { uploadBytesPerSecond: 5 * MiB } } } : {})
    assert.ok(publisher !== undefined && loader !== undefined)
    await cluster.connect()
    const { cid } = await publisher.add(join(root, 'model'))
    return { cid, loader, ...await serve(loader) }
  }

  describe('the life of a model', () => {
    it('is added, listed, shown, verified, pinned, collected and removed, in the shapes that are documented', async () => {
      const { client } = await one()
      const progress: number[] = []
      const added = schemas.AddResult.parse(await client.add(join(root, 'model'), { onProgress: ({ bytesDone }) => { progress.push(bytesDone) } }))
      assert.equal(added.files, 2)
      assert.equal(added.bytes, 12 * MiB + 2)
      assert.ok(progress.length > 0)

      const [listed] = schemas.Models.parse(await client.models())
      assert.equal(listed?.cid, added.cid)
      assert.equal(listed?.complete, true)

      const shown = await client.show(added.cid)
      schemas.ModelDetails.parse(shown)
      assert.deepEqual(shown.fileList.map(file => file.path), ['config.json', 'weights.bin'])

      const verified = schemas.VerifyResult.parse(await client.verify(added.cid))
      assert.deepEqual([verified.bytes, verified.bad], [added.bytes, []])
      assert.deepEqual((await client.verify(undefined)).blocks, added.blocks)

      assert.deepEqual(await client.pin(added.cid), { cid: added.cid, pinned: true })
      assert.equal((await client.models())[0]?.pinned, true)
      assert.deepEqual(await client.unpin(added.cid), { cid: added.cid, pinned: false })
      schemas.GcResult.parse(await client.gc({ dryRun: true }))
      assert.equal((await client.models()).length, 1)
      schemas.Status.parse(await client.status())
      schemas.Transfers.parse(await client.transfers())
      schemas.Peers.parse(await client.peers())
      assert.equal(schemas.RemoveResult.parse(await client.remove(added.cid)).freedBytes, added.bytes)
      assert.deepEqual(await client.models(), [])
    })

    it('fails by name for what is not there or malformed', async () => {
      const { client } = await one()
      const calls: Array<[string, () => Promise<unknown>]> = [
        ['ModelNotFoundError', async () => await client.show(NOWHERE)],
        ['ModelNotFoundError', async () => await client.remove(NOWHERE)],
        ['ModelNotFoundError', async () => await client.pin(NOWHERE)],
        ['ModelNotFoundError', async () => await client.verify(NOWHERE)],
        ['InvalidCidError', async () => await client.show('no-cid')],
        ['InvalidCidError', async () => await client.show('../../v1/status')],
        ['InvalidCidError', async () => await client.load('bafkqaaa')],
        ['InvalidCidError', async () => await client.verify('x')],
        ['UsageError', async () => await client.show('x'.repeat(300))],
        ['UsageError', async () => await client.add('relative/path')],
        ['UsageError', async () => await client.add('/nul\0byte')],
        ['UnreadableSourceError', async () => await client.add(join(root, 'missing'))],
        ['UsageError', async () => await client.wait(NOWHERE, { path: 'a', offset: 0, length: 1 })],
        ['UsageError', async () => await client.wait(NOWHERE, { path: 'a', offset: -1, length: 1 })],
        ['NoProviderError', async () => await client.load(NOWHERE, { providerTimeoutMs: 200 })],
        ['UsageError', async () => await client.shutdown()]
      ]
      for (const [name, call] of calls) await assert.rejects(call, { name }, String(call))
    })

    it('travels: an invite connects, files come first, progress is bounded, the rest is told at the end', async () => {
      const [a, b] = await cluster.spawn(2)
      assert.ok(a !== undefined && b !== undefined)
      const [first, second] = [await serve(a), await serve(b)]
      assert.equal(await second.client.connect(a.multiaddrs()[0] ?? ''), a.peerId)
      assert.match(await first.client.invite(), /^shoal1/)
      const { cid, bytes } = await first.client.add(join(root, 'model'))
      const types: string[] = []
      for await (const message of second.client.open(cid)) {
        schemas.LoadLine.parse(message)
        types.push(message.type)
        if (message.type === 'files') assert.deepEqual(message.files.map(file => [file.path, file.wanted]), [['config.json', true], ['weights.bin', true]])
        if (message.type !== 'done') continue
        assert.equal(message.result.bytes, bytes)
        assert.equal(message.result.peers[a.peerId], message.result.fetchedBytes)
      }
      assert.deepEqual(types.filter(type => type !== 'progress'), ['files', 'done'])
      const again = await second.client.load(cid)
      assert.deepEqual([again.fetchedBytes, again.reusedBytes], [0, bytes])
      // A complete model needs no open load to be waited for, and its ranges are checked all the same.
      await second.client.wait(cid, { path: 'weights.bin', offset: 12 * MiB - 1, length: 1 })
      await assert.rejects(second.client.wait(cid, { path: 'weights.bin', offset: 12 * MiB, length: 1 }), { name: 'UsageError' })
      await assert.rejects(second.client.wait(cid, { path: 'other', offset: 0, length: 1 }), { name: 'FileNotFoundError' })
    })
  })

  describe('a load', () => {
    it('answers a wait for a range long before the rest is there', async () => {
      const { cid, client } = await slowPair()
      let waited = false
      let last: LoadProgress | undefined
      for await (const message of client.open(cid, { order: 'sequential' })) {
        if (message.type === 'progress') last = message.progress
        if (message.type !== 'files') continue
        await client.wait(cid, { path: 'weights.bin', offset: 11 * MiB, length: 10 })
        waited = true
        break
      }
      assert.ok(waited)
      assert.ok((last?.bytesDone ?? 0) < 12 * MiB)
    })

    it('is left when its client goes, by abort, by leaving the loop, or by dying', async () => {
      const { cid, loader, client, server } = await slowPair()
      const progressing = async (client: ApiClient, signal?: AbortSignal): Promise<void> => {
        for await (const message of client.open(cid, { signal })) if (message.type === 'progress' && message.progress.bytesDone > 0) return
      }
      await progressing(client)
      await until('the load is left', () => loader.transfers().length === 0, { withinMs: 10_000 })
      const stopping = new AbortController()
      const aborted = assert.rejects(async () => { for await (const message of client.open(cid, { signal: stopping.signal })) if (message.type === 'files') stopping.abort() }, { name: 'AbortError' })
      await aborted
      await until('the load is left', () => loader.transfers().length === 0, { withinMs: 10_000 })
      // Without reading a byte of the answer.
      const sent = request({ socketPath: server.socketPath, path: `/v1/models/${cid}/load`, method: 'POST', headers: { host: 'localhost', 'content-type': 'application/json' } })
      sent.on('error', () => undefined)
      sent.setHeader('content-length', 2)
      sent.end('{}')
      await until('the load runs', () => loader.transfers().length === 1, { withinMs: 10_000 })
      sent.destroy()
      await until('the load is left', () => loader.transfers().length === 0, { withinMs: 10_000 })
    })

    it('goes on for one caller when another leaves', async () => {
      const { cid, loader, client } = await slowPair()
      const staying = client.load(cid)
      for await (const message of client.open(cid)) if (message.type === 'files') break
      await until('one has left', () => loader.transfers()[0]?.callers === 1, { withinMs: 10_000 })
      assert.equal((await staying).bytes, 12 * MiB + 2)
    })
  })

  it('a load that is held keeps its model from being evicted by another, until it is closed', async () => {
    const [publisher, loader] = await cluster.spawn(2, position => position === 0 ? {} : { settings: { storage: { quota: 20 * MiB } } })
    assert.ok(publisher !== undefined && loader !== undefined)
    await cluster.connect()
    await mkdir(join(root, 'other'))
    await writeFile(join(root, 'other', 'weights.bin'), randomBytes(12 * MiB))
    const { cid } = await publisher.add(join(root, 'model'), { replicas: 0 })
    const other = await publisher.add(join(root, 'other'), { replicas: 0 })
    const { client } = await serve(loader)
    let files: string[] = []
    await client.load(cid, {
      onFiles: message => { files = message.files.map(file => file.localPath ?? '') },
      whileHeld: async () => {
        await assert.rejects(client.load(other.cid), { name: 'QuotaExceededError' })
        for (const file of files) await access(file)
      }
    })
    await client.load(other.cid)
    for (const file of files) await assert.rejects(access(file), { code: 'ENOENT' })
  })

  describe('hostile requests', () => {
    it('from web pages are refused on both sockets, and no answer invites them', async () => {
      const { socketPath, server } = await one({ tcp: { host: '127.0.0.1', port: 0, token: TOKEN } })
      const port = Number(new URL(server.url ?? '').port)
      for (const where of [{ socketPath }, { port }]) {
        const refused: Array<[number, Record<string, string>]> = [
          [403, { host: 'evil.example' }], [403, { host: 'localhost.evil.example' }], [403, { host: '127.0.0.1.evil.example' }], [403, { host: '0.0.0.0' }],
          [403, { origin: 'http://evil.example' }], [403, { origin: 'null' }], [403, { origin: 'http://localhost:3000' }],
          [403, { 'sec-fetch-site': 'cross-site' }], [403, { 'sec-fetch-site': 'same-site' }]
        ]
        for (const [status, headers] of refused) {
          const answer = await ask(where, '/v1/status', { headers: { authorization: `Bearer ${TOKEN}`, ...headers } })
          assert.equal(answer.status, status, JSON.stringify(headers))
          assert.equal(Object.keys(answer.headers).some(name => name.startsWith('access-control')), false)
        }
        const fine: Array<Record<string, string>> = [{}, { host: 'LOCALHOST:1234' }, { host: '[::1]:80' }, { origin: 'http://localhost' }, { 'sec-fetch-site': 'none' }]
        for (const headers of fine) {
          assert.equal((await ask(where, '/v1/status', { headers: { authorization: `Bearer ${TOKEN}`, ...headers } })).status, 200, JSON.stringify(headers))
        }
        assert.equal((await ask(where, '/v1/shutdown', { method: 'OPTIONS', headers: { origin: 'http://evil.example', 'access-control-request-method': 'POST' } })).status, 403)
      }
    })

    it('over TCP need the token, for everything', async () => {
      const { server } = await one({ tcp: { host: '127.0.0.1', port: 0, token: TOKEN } })
      const port = Number(new URL(server.url ?? '').port)
      for (const path of ['/v1/status', '/v1/invite', '/metrics', '/livez', '/v1/openapi.json', '/nowhere']) {
        for (const authorization of ['', 'Bearer', 'Bearer wrong', `Basic ${TOKEN}`, `Bearer ${TOKEN}x`, `Bearer ${TOKEN.slice(0, -1)}`]) {
          assert.equal((await ask({ port }, path, { headers: { authorization } })).status, 401, `${path} ${authorization}`)
        }
      }
      assert.equal((await ask({ port }, '/v1/status', { headers: { authorization: `bearer ${TOKEN}` } })).status, 200)
    })

    it('where metrics are told get those and nothing else, with no token, and none from web pages', async () => {
      const { server } = await one({ watch: { host: '127.0.0.1', port: 0, hosts: ['scraped.example'] } })
      const { port: text, pathname } = new URL(server.metricsUrl ?? '')
      const port = Number(text)
      assert.equal(pathname, '/metrics')
      const told = await ask({ port }, '/metrics')
      assert.match(told.text, /^shoal_info\{version="[^"]+"\} 1$/m)
      assert.doesNotMatch(told.text, /baf[a-z0-9]{20}|12D3Koo/)
      for (const [path, body] of [['/livez', '{"status":"alive"}'], ['/readyz', '{"status":"ready"}']] as const) assert.equal((await ask({ port }, path, { headers: { host: 'scraped.example:4110' } })).text, body)
      assert.equal((await ask({ port }, '/metrics', { method: 'HEAD' })).status, 200)
      for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']) {
        for (const path of ['/', '/v1/status', '/v1/invite', '/v1/models', '/v1/shutdown', '/v1/drain', '/v1/gc', '/v1/openapi.json', '/metrics/', '/metrics/../v1/status', '//v1/status', '/%6detrics%00']) {
          assert.equal((await ask({ port }, path, { method })).status, 404, `${method} ${path}`)
        }
      }
      assert.match((await ask({ port }, '/v1/status')).text, /the metrics listener has no GET \/v1\/status; see \/livez, \/readyz, \/metrics/)
      const pages: Array<Record<string, string>> = [{ host: 'evil.example' }, { origin: 'http://evil.example' }, { 'sec-fetch-site': 'cross-site' }]
      for (const headers of pages) assert.equal((await ask({ port }, '/metrics', { headers })).status, 403)
    })

    it('of eight who read metrics without a pause each gets them', async () => {
      const { server } = await one({ watch: { host: '127.0.0.1', port: 0 } })
      const port = Number(new URL(server.metricsUrl ?? '').port)
      const told = await Promise.all(Array.from({ length: 8 }, async () => {
        const statuses: number[] = []
        for (let left = 50; left > 0; left--) statuses.push((await ask({ port }, '/metrics')).status)
        return statuses
      }))
      assert.deepEqual(new Set(told.flat()), new Set([200]))
    })

    it('where metrics are told answer who asks for health, whoever else holds connections there', async () => {
      const { server } = await one({ watch: { host: '127.0.0.1', port: 0 } })
      const port = Number(new URL(server.metricsUrl ?? '').port)
      const sockets = Array.from({ length: 64 }, () => connect(port, '127.0.0.1').on('error', () => undefined))
      const trickle = setInterval(() => { for (const socket of sockets) socket.write('x') }, 20)
      try {
        for (const socket of sockets) socket.write('GET /metrics HTTP/1.1\r\nx-slow: ')
        await Promise.all(sockets.map(async socket => { if (socket.connecting) await once(socket, 'connect') }))
        for (const path of ['/livez', '/readyz', '/livez', '/readyz']) assert.equal((await ask({ port }, path)).status, 200)
      } finally {
        clearInterval(trickle)
        for (const socket of sockets) socket.destroy()
      }
    })

    it('TCP beyond loopback needs to be meant, and a token worth the name', () => {
      const node = {} as ShoalNode
      const tcp = { host: '127.0.0.1', port: 0, token: TOKEN }
      const make = (given: object): ApiServer => createApiServer({ node, socketPath: join(root, 'never.sock'), tcp: { ...tcp, ...given } })
      for (const given of [{ host: '0.0.0.0' }, { host: '::' }, { host: '10.0.0.1' }, { token: 'short' }, { port: -1 }, { port: 65_536 }]) assert.throws(() => make(given), { name: 'ConfigError' })
      make({ host: '0.0.0.0', allowRemote: true })
      make({ host: '::1' })
      const watching = (watch: ApiServerInit['watch']): ApiServer => createApiServer({ node, socketPath: join(root, 'never.sock'), watch })
      for (const given of [{ host: '0.0.0.0', port: 0 }, { host: '127.0.0.1', port: 65_536 }]) assert.throws(() => watching(given), { name: 'ConfigError', message: /^metrics\.listen names / })
      watching({ host: '0.0.0.0', port: 0, allowRemote: true })
    })

    it('that are malformed get an answer that says so', async () => {
      const { socketPath } = await one()
      const json = { 'content-type': 'application/json' }
      const bad: Array<[number, string, string, Parameters<typeof ask>[2]]> = [
        [400, 'UsageError', '/v1/gc', { method: 'POST', headers: json, body: '{' }],
        [400, 'UsageError', '/v1/gc', { method: 'POST', headers: json, body: 'null' }],
        [400, 'UsageError', '/v1/gc', { method: 'POST', headers: json, body: '{"dryrun":true}' }],
        [400, 'UsageError', '/v1/gc', { method: 'POST', headers: json, body: '{"dryRun":"yes"}' }],
        [400, 'UsageError', '/v1/gc', { method: 'POST', headers: { 'content-type': 'text/plain' }, body: '{}' }],
        [400, 'UsageError', '/v1/gc', { method: 'POST', headers: { ...json, 'transfer-encoding': 'chunked' }, body: '{}' }],
        [400, 'UsageError', `/v1/models/${NOWHERE}/load`, { method: 'POST', headers: json, body: JSON.stringify({ include: Array.from({ length: 1000 }, () => '*') }) }],
        [400, 'UsageError', `/v1/models/${NOWHERE}/load`, { method: 'POST', headers: json, body: '{"order":"random"}' }],
        [400, 'UsageError', `/v1/models/${NOWHERE}/load`, { method: 'POST', headers: json, body: '{"providerTimeoutMs":1e99}' }],
        [400, 'UsageError', `/v1/models/${NOWHERE}/wait`, { method: 'POST', headers: json, body: '{"path":"a","offset":0.5,"length":1}' }],
        [400, 'InvalidCidError', '/v1/models/%00', {}],
        [400, 'UsageError', `/v1/models/${NOWHERE}?tensors=maybe`, {}],
        [400, 'UsageError', `/v1/models/${NOWHERE}?tensor=true`, {}],
        [400, 'InvalidRepoNameError', '/v1/links', { method: 'PUT', headers: json, body: JSON.stringify({ repo: '../x', cid: NOWHERE }) }],
        [400, 'InvalidCidError', '/v1/links', { method: 'PUT', headers: json, body: '{"repo":"a/b","cid":"x"}' }],
        [400, 'UsageError', '/v1/links', { method: 'PUT', headers: json, body: JSON.stringify({ repo: 'a/b', cid: NOWHERE, more: 1 }) }],
        [400, 'UsageError', '/v1/links', { method: 'DELETE' }],
        [400, 'UsageError', '/v1/links?repo=a%2Fb&rev=v1', { method: 'DELETE' }],
        [404, 'LinkNotFoundError', '/v1/links?repo=a%2Fb', { method: 'DELETE' }],
        [413, 'LimitExceededError', '/v1/gc', { method: 'POST', headers: json, body: Buffer.alloc(API_BODY_BYTES_MAX + 1, ' ') }],
        [404, 'UnknownRouteError', '/v1/nothing', {}],
        [404, 'UnknownRouteError', '/v1/gc', {}]
      ]
      for (const [status, name, path, init] of bad) {
        const answer = await ask({ socketPath }, path, init).catch(error => { throw new Error(`${path}: ${asError(error).message}`) })
        const { error } = schemas.ErrorBody.parse(JSON.parse(answer.text))
        assert.deepEqual([answer.status, error.name], [status, name], `${path} ${JSON.stringify(init)?.slice(0, 200)}: ${error.message}`)
      }
    })
  })

  describe('what watches it', () => {
    it('finds every route in the document, and every reference in it', async () => {
      const { socketPath } = await one()
      const document = JSON.parse((await ask({ socketPath }, '/v1/openapi.json')).text) as { paths: Record<string, Record<string, unknown>>, components: { schemas: Record<string, unknown> } }
      const routes = Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map(method => `${method} ${path}`)).sort()
      assert.deepEqual(routes, [
        'delete /v1/links', 'delete /v1/models/{cid}', 'delete /v1/models/{cid}/pin', 'get /v1/invite', 'get /v1/links', 'get /v1/models', 'get /v1/models/{cid}', 'get /v1/peers', 'get /v1/status',
        'get /v1/transfers', 'post /v1/connect', 'post /v1/drain', 'post /v1/gc', 'post /v1/models', 'post /v1/models/{cid}/load', 'post /v1/models/{cid}/replicated',
        'post /v1/models/{cid}/wait', 'post /v1/shutdown',
        'post /v1/verify', 'put /v1/links', 'put /v1/models/{cid}/pin'
      ])
      const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(match => match[1] ?? '')
      assert.ok(references.length > 10)
      for (const name of references) assert.ok(name in document.components.schemas, name)
    })

    it('reads metrics with one prefix, base units, and neither CIDs nor peers in labels', async () => {
      const { client, node, socketPath } = await one()
      const { cid } = await client.add(join(root, 'model'))
      await client.show(cid)
      await assert.rejects(client.show('nonsense'), { name: 'InvalidCidError' })
      const { text, headers } = await ask({ socketPath }, '/metrics')
      assert.match(headers['content-type'] ?? '', /^text\/plain; version=0\.0\.4/)
      for (const line of text.split('\n')) {
        if (line !== '' && !line.startsWith('#')) assert.match(line, /^shoal_[a-z0-9_]+(\{[^}]*\})? -?[0-9.e+-]+$/)
      }
      for (const secret of [cid, node.peerId, 'nonsense']) assert.equal(text.includes(secret), false)
      assert.match(text, /^shoal_models\{state="complete"\} 1$/m)
      assert.match(text, /^shoal_http_requests_total\{method="GET",route="\/v1\/models\/:cid",status="200"\} 1$/m)
      assert.match(text, /^shoal_http_requests_total\{method="GET",route="\/v1\/models\/:cid",status="400"\} 1$/m)
      for (const name of ['received_bytes_total', 'sent_bytes_total', 'transfers', 'peers', 'announce_backlog_keys', 'announce_lag_seconds', 'storage_held_bytes', 'storage_free_bytes', 'blocks_lost_total']) {
        assert.match(text, new RegExp(`^shoal_${name}`, 'm'), name)
      }
    })
  })

  describe('its socket', () => {
    it('is for this user, and gone when the server is', async () => {
      const { socketPath, server } = await one()
      assert.equal((await stat(socketPath)).mode & 0o777, 0o600)
      await server.stop()
      await assert.rejects(access(socketPath))
      await assert.rejects(new ApiClient({ socketPath }).status(), { name: 'DaemonUnreachableError' })
    })

    it('replaces one that a dead daemon left, never a live one, a file, or a path that is too long', async () => {
      const { node, socketPath } = await one()
      const make = (path: string): ApiServer => createApiServer({ node, socketPath: path })
      await assert.rejects(make(socketPath).start(), { name: 'ApiSocketInUseError' })
      assert.equal((await ask({ socketPath }, '/readyz')).status, 200, 'the live one was left alone')

      // A socket file that outlives its server: bound under another name, which is then taken away.
      const left = join(root, 'left.sock')
      const dead = createServer()
      await new Promise<void>(resolve => dead.listen(`${left}.bound`, resolve))
      const { rename } = await import('node:fs/promises')
      await rename(`${left}.bound`, left)
      await new Promise(resolve => { dead.close(resolve) })
      await access(left)
      await serve(node, { socketPath: left })

      await writeFile(join(root, 'file.sock'), 'precious')
      await assert.rejects(make(join(root, 'file.sock')).start(), { name: 'ConfigError' })
      await access(join(root, 'file.sock'))
      assert.throws(() => make(join(root, 'x'.repeat(100))), { name: 'ConfigError' })
    })

    it('says so when it has all the connections that it takes', async () => {
      const { client, socketPath } = await one()
      const sockets: Socket[] = []
      try {
        while (sockets.length < API_CONNECTIONS_MAX) {
          // The queue of a socket takes so many at a time. An answer on the last says that those before it were taken out.
          const more = Array.from({ length: 64 }, () => connect(socketPath))
          sockets.push(...more)
          const last = more.at(-1)
          last?.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
          if (last !== undefined) await once(last, 'data')
        }
        await assert.rejects(client.status(), { name: 'ApiBusyError', retryable: true })
        await assert.rejects(client.gc(), { name: 'ApiBusyError', message: /^all 1024 connections that the API takes are open; / })
        sockets[0]?.destroy()
        await until('a connection is free', async () => await client.status().then(() => true, () => false), { withinMs: 10_000 })
      } finally {
        for (const socket of sockets) socket.destroy()
      }
    })

    it('stops in order: not ready, streams told why, all within two seconds, whoever holds a connection', async () => {
      const { cid, client, server } = await slowPair()
      const idle = connect(server.socketPath)
      await new Promise(resolve => idle.once('connect', resolve))
      idle.on('error', () => undefined)
      const reading = client.open(cid)[Symbol.asyncIterator]()
      await reading.next()
      const ended = assert.rejects(async () => { while ((await reading.next()).done !== true); }, { name: 'NodeStoppedError' })
      const before = performance.now()
      await server.stop()
      assert.ok(performance.now() - before < 2_000)
      await ended
      idle.destroy()
    })
  })
})
