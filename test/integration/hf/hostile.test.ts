import assert from 'node:assert/strict'
import { writeFile, mkdir } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { HF_PIPELINED_MAX, MiB } from '../../../src/base/index.ts'
import { EndpointTraffic } from '../../../src/api/endpoint-metrics.ts'
import { createHfServer, type HfServer } from '../../../src/hf/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory } from '../../support/files.ts'

/** Stands in files that may be read, in ones that may not, and in none of the answers below but where it is expected. */
const SECRET = 'TOP-SECRET-5f2c'
const PUBLIC = `public ${SECRET}`
const FILE = '/acme/tiny/resolve/main/config.json'
const INFO = '/api/models/acme/tiny'
const ROUTES = [FILE, INFO, '/api/models/acme/tiny/tree/main', '/api/models/acme/tiny/refs', '/api/whoami-v2', '/api/models']

/** What is sent as it stands, and which first lines are good. Whatever comes back must not hold what is in the files. */
interface Case { what: string, send: string, expect: RegExp }

const head = (lines: string[], first = `GET ${FILE} HTTP/1.1`): string => `${[first, ...lines].join('\r\n')}\r\n\r\n`
const CLOSE = 'Connection: close'
const REFUSED = /^HTTP\/1\.1 403 /
const BAD = /^HTTP\/1\.1 4\d\d /

const HOSTS = [
  'evil.example', 'evil.example:80', '127.0.0.1.evil.example', 'localhost.evil.example', 'evil.localhost', 'models.example.evil', '127.0.0.2', '0.0.0.0', '[::]', '[::ffff:127.0.0.1]', '2130706433', '0x7f.1', '127.1',
  '169.254.169.254', '192.168.0.1', 'huggingface.co', 'localhost@evil.example', 'localhost:80@evil.example', 'localhost#evil', 'localhost/evil', 'localhost\\evil', 'LOCALHOST.', 'localhost:port', 'localhost:999999', '', ' ',
  'localhost evil.example', '127.0.0.1,evil.example', 'xn--lcalhost-q4a', 'loc\u0430lhost'
]
const ORIGINS = [
  'http://evil.example', 'https://evil.example', 'null', 'http://localhost:1', 'https://localhost', 'http://127.0.0.1', 'http://127.0.0.1:80', 'file://', 'chrome-extension://x', 'http://localhost.evil.example', 'http://[::1]',
  'HTTP://LOCALHOST', 'http://localhost/', 'http://localhost@evil.example', ' '
]
const SITES = ['cross-site', 'same-site', 'anything']
const METHODS = ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND']
const TRAVERSALS = [
  '../../../../../../SECRETFILE', '..%2f..%2f..%2f..%2fSECRETFILE', '%2e%2e/%2e%2e/SECRETFILE', '%2e%2e%2f%2e%2e%2fSECRETFILE', '..%252f..%252fSECRETFILE', '..%5c..%5cSECRETFILE', '..\\..\\SECRETFILE', '....//....//SECRETFILE', '/SECRETFILE', '//SECRETFILE',
  '%2fSECRETFILE', './config.json', 'sub/../config.json', 'config.json/', 'config.json/..', 'config.json%00', 'config.json%00.txt', '%00', 'config.json%20', 'config.json.', 'CONFIG.JSON', 'config%2ejson%2f', '%c0%ae%c0%ae/SECRETFILE', '%uff0e%uff0e/x',
  '%ff', '%', '%2', '%zz', '..;/SECRETFILE', 'config.json;x', '~/SECRETFILE', '.git/config', '../../../swarm.key', '..%2f..%2f..%2fidentity.key', '../../api.token', 'con', 'config.json:stream', '%e2%80%ae', '%0d%0aSet-Cookie:x', '%0a', 'a'.repeat(4_000), `${'a/'.repeat(2_000)}b`
]
const REPOS = [
  '../..', '..%2f..', '%2e%2e/%2e%2e', 'acme', 'acme/', 'acme//tiny', 'Acme/tiny', 'acme/tiny/x', 'acme%00/tiny', 'cid/..', 'cid/x', 'cid/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy', 'cid', 'cid/', `cid/${'b'.repeat(4_000)}`, '__proto__/constructor', 'constructor',
  'hasOwnProperty/x', 'api/models', 'v2/x', 'acme/tiny.git', 'acme/tiny@main', 'acme/tiny%20'
]
const REVISIONS = ['..', '%2e%2e', '..%2f..', 'main%00', 'main%2f', '%2fmain', 'MAIN', 'HEAD', 'refs', '__proto__', '0'.repeat(40), 'f'.repeat(39), 'a'.repeat(5_000), '%ff', 'main%0d%0ax', '']
const RANGES = ['bytes=-', 'bytes=5-1', 'bytes=0-0,2-3,4-5', 'bytes=a-b', `bytes=${'0-1,'.repeat(1_000)}0-1`, 'bytes=0--1', 'bytes=1e3-', 'bytes=٣-', 'items=0-1', 'bytes', '=0-1', 'bytes=0-1;x']
const NO_RANGES = ['bytes=99999-', 'bytes=9999999999999999-', 'bytes=-0', 'bytes=1000000-2000000']

const cases: Case[] = [
  ...HOSTS.flatMap(host => [FILE, INFO].map(path => ({ what: `the host ${JSON.stringify(host)} for ${path}`, send: head([`Host: ${host}`, CLOSE], `GET ${path} HTTP/1.1`), expect: /^HTTP\/1\.1 40[03] / }))),
  ...ROUTES.map(path => ({ what: `no host for ${path}`, send: head([CLOSE], `GET ${path} HTTP/1.1`), expect: BAD })),
  { what: 'no host in HTTP/1.0', send: head([], `GET ${FILE} HTTP/1.0`), expect: REFUSED },
  { what: 'two hosts', send: head(['Host: localhost', 'Host: evil.example', CLOSE]), expect: BAD },
  { what: 'an address that names a host', send: head(['Host: evil.example', CLOSE], `GET http://localhost${FILE} HTTP/1.1`), expect: BAD },
  { what: 'an address that names another host', send: head(['Host: localhost', CLOSE], `GET http://evil.example${FILE} HTTP/1.1`), expect: BAD },
  ...ORIGINS.flatMap(origin => [FILE, INFO].map(path => ({ what: `the origin ${JSON.stringify(origin)} for ${path}`, send: head(['Host: localhost', `Origin: ${origin}`, CLOSE], `GET ${path} HTTP/1.1`), expect: REFUSED }))),
  ...SITES.map(site => ({ what: `Sec-Fetch-Site ${site}`, send: head(['Host: localhost', `Sec-Fetch-Site: ${site}`, CLOSE]), expect: REFUSED })),
  ...METHODS.flatMap(method => [FILE, INFO].map(path => ({ what: `${method} ${path}`, send: head(['Host: localhost', 'Content-Length: 0', CLOSE], `${method} ${path} HTTP/1.1`), expect: /^HTTP\/1\.1 405 / }))),
  { what: 'CONNECT', send: head(['Host: localhost'], 'CONNECT evil.example:443 HTTP/1.1'), expect: /^$/ },
  { what: 'an upgrade', send: head(['Host: localhost', 'Upgrade: websocket', 'Connection: Upgrade'], 'GET /nothing HTTP/1.1'), expect: /^$|^HTTP\/1\.1 404 / },
  { what: 'GET of paths-info', send: head(['Host: localhost', CLOSE], 'GET /api/models/acme/tiny/paths-info/main HTTP/1.1'), expect: /^HTTP\/1\.1 405 / },
  ...TRAVERSALS.map(path => ({ what: `the file ${path.slice(0, 60)}`, send: head(['Host: localhost', CLOSE], `GET /acme/tiny/resolve/main/${path} HTTP/1.1`), expect: BAD })),
  ...TRAVERSALS.slice(0, 24).map(path => ({ what: `the tree ${path.slice(0, 60)}`, send: head(['Host: localhost', CLOSE], `GET /api/models/acme/tiny/tree/main/${path} HTTP/1.1`), expect: BAD })),
  ...REPOS.map(repo => ({ what: `the repository ${repo.slice(0, 60)}`, send: head(['Host: localhost', CLOSE], `GET /${repo}/resolve/main/config.json HTTP/1.1`), expect: BAD })),
  ...REPOS.map(repo => ({ what: `facts about ${repo.slice(0, 60)}`, send: head(['Host: localhost', CLOSE], `GET /api/models/${repo}/revision/main HTTP/1.1`), expect: BAD })),
  ...REVISIONS.map(revision => ({ what: `the revision ${revision.slice(0, 60)}`, send: head(['Host: localhost', CLOSE], `GET /acme/tiny/resolve/${revision}/config.json HTTP/1.1`), expect: BAD })),
  ...NO_RANGES.map(range => ({ what: `the range ${range}`, send: head(['Host: localhost', `Range: ${range}`, CLOSE]), expect: /^HTTP\/1\.1 416 / })),
  { what: 'a huge header', send: head(['Host: localhost', `X: ${'x'.repeat(20_000)}`, CLOSE]), expect: /^HTTP\/1\.1 431 / },
  { what: 'many headers', send: head(['Host: localhost', ...Array.from({ length: 3_000 }, (_, i) => `X-${i}: x`), CLOSE]), expect: /^HTTP\/1\.1 431 / },
  { what: 'a huge address', send: head(['Host: localhost'], `GET /${'x'.repeat(20_000)} HTTP/1.1`), expect: /^HTTP\/1\.1 431 / },
  { what: 'a NUL in a header', send: head(['Host: localhost', 'X: a\0b']), expect: BAD },
  { what: 'a header of two lines', send: head(['Host: localhost', 'X: a', ' b']), expect: BAD },
  { what: 'a header without a colon', send: head(['Host: localhost', 'nonsense']), expect: BAD },
  { what: 'a space before the colon', send: head(['Host : localhost']), expect: BAD },
  { what: 'two lengths', send: head(['Host: localhost', 'Content-Length: 1', 'Content-Length: 2'], `POST ${INFO}/paths-info/main HTTP/1.1`), expect: BAD },
  { what: 'a length and chunks', send: `${head(['Host: localhost', 'Content-Length: 4', 'Transfer-Encoding: chunked'], `POST ${INFO}/paths-info/main HTTP/1.1`)}0\r\n\r\nGET ${FILE} HTTP/1.1\r\nHost: evil.example\r\n\r\n`, expect: BAD },
  { what: 'a negative length', send: head(['Host: localhost', 'Content-Length: -1'], `POST ${INFO}/paths-info/main HTTP/1.1`), expect: BAD },
  { what: 'an unknown coding', send: head(['Host: localhost', 'Transfer-Encoding: gzip, chunked, identity'], `POST ${INFO}/paths-info/main HTTP/1.1`), expect: BAD },
  { what: 'another protocol', send: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', expect: BAD },
  { what: 'HTTP/2', send: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', expect: BAD },
  { what: 'HTTP/0.9', send: `GET ${FILE}\r\n\r\n`, expect: BAD },
  { what: 'noise', send: `${'\x01\x02\xff'.repeat(300)}\r\n\r\n`, expect: BAD },
  { what: 'an asterisk', send: head(['Host: localhost', CLOSE], 'GET * HTTP/1.1'), expect: BAD },
  { what: 'a cursor that is none', send: head(['Host: localhost', CLOSE], `GET ${INFO}/tree/main?cursor=-1 HTTP/1.1`), expect: /^HTTP\/1\.1 400 / },
  { what: 'a limit that is none', send: head(['Host: localhost', CLOSE], `GET ${INFO}/tree/main?limit=1e9 HTTP/1.1`), expect: /^HTTP\/1\.1 400 / },
  ...['{', '[]', 'null', '{"paths":1}', '{"paths":[1]}', '{"paths":{"length":1e9}}'].map(body => ({
    what: `the body ${body}`, send: head(['Host: localhost', 'Content-Type: application/json', `Content-Length: ${body.length}`, CLOSE], `POST ${INFO}/paths-info/main HTTP/1.1`) + body, expect: /^HTTP\/1\.1 400 /
  })),
  { what: 'a body without end', send: head(['Host: localhost', 'Content-Type: application/json', 'Content-Length: 2000000'], `POST ${INFO}/paths-info/main HTTP/1.1`) + 'x'.repeat(1_100_000), expect: /^HTTP\/1\.1 413 / }
]

/** What it should give all the same: bad ranges are passed over, and these are who may ask. */
const served: Array<[string, string[]]> = [
  ...RANGES.map((range): [string, string[]] => [`the range ${range.slice(0, 40)}`, ['Host: localhost', `Range: ${range}`]]),
  ...['localhost', 'LOCALHOST', 'localhost:8765', '127.0.0.1', '127.0.0.1:1', '[::1]', '[::1]:8765', 'models.example', 'Models.Example:443'].map((host): [string, string[]] => [`the host ${host}`, [`Host: ${host}`]]),
  ['its own origin', ['Host: localhost:1', 'Origin: http://localhost:1']], ['a typed address', ['Host: localhost', 'Sec-Fetch-Site: none']], ['a token', ['Host: localhost', 'Authorization: Bearer hf_x']]
]

describe('hf: hostile HTTP', function () {
  this.timeout(60_000)
  let cluster: Cluster
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  let node: ShoalNode
  let server: HfServer
  let port = 0

  before(async () => {
    cluster = new Cluster({ transport: 'tcp', settings: { transfer: { providerTimeoutMs: 200 } } })
    directory = await temporaryDirectory('hostile')
    await mkdir(join(directory.path, 'model', 'sub'), { recursive: true })
    await writeFile(join(directory.path, 'model', 'config.json'), PUBLIC)
    await writeFile(join(directory.path, 'model', 'sub', 'x'), 'x')
    await writeFile(join(directory.path, 'model', 'large.bin'), Buffer.alloc(12 * MiB))
    await writeFile(join(directory.path, 'SECRETFILE'), SECRET)
    ;[node] = await cluster.spawn(1) as [ShoalNode]
    const { cid } = await node.add(join(directory.path, 'model'), { replicas: 0 })
    await node.link({ repo: 'acme/tiny', revision: 'main' }, cid)
    server = createHfServer({ node, host: '127.0.0.1', port: 0, hosts: ['models.example'] })
    await server.start()
    port = Number(new URL(server.url ?? '').port)
  })
  after(async () => {
    await server.stop()
    await cluster.teardown()
    await directory[Symbol.asyncDispose]()
  })

  /** All that comes back until the other side closes, or has answered. */
  async function send (bytes: string): Promise<string> {
    return await new Promise((resolve, reject) => {
      let answer = ''
      const socket = connect(port, '127.0.0.1', () => { socket.write(Buffer.from(bytes, 'latin1')) })
      const timer = setTimeout(() => { socket.destroy(); reject(new Error(`no end after 5 s: ${answer.slice(0, 200)}`)) }, 5_000)
      const end = (): void => { clearTimeout(timer); socket.destroy(); resolve(answer) }
      socket.setEncoding('latin1')
      socket.on('data', (chunk: string) => {
        answer += chunk
        const [top = '', body] = answer.split('\r\n\r\n')
        const length = /^content-length: (\d+)/im.exec(top)?.[1]
        if (body !== undefined && length !== undefined && body.length >= Number(length)) end()
      })
      socket.on('end', end)
      socket.on('close', end)
      socket.on('error', end)
    })
  }

  it(`refuses ${cases.length} requests, and tells nothing by it`, async () => {
    assert.ok(cases.length >= 200)
    const wrong: string[] = []
    for (const { what, send: bytes, expect } of cases) {
      const answer = await send(bytes).catch((error: Error) => `failed: ${error.message}`)
      if (!expect.test(answer)) wrong.push(`${what}: ${JSON.stringify(answer.slice(0, 120))}`)
      if (answer.includes(SECRET)) wrong.push(`${what}: told what is in a file`)
      if (/^access-control-/im.test(answer)) wrong.push(`${what}: lets pages of others read`)
      if (/ 5\d\d /.test(answer.slice(0, 15))) wrong.push(`${what}: failed`)
    }
    assert.deepEqual(wrong, [])
    assert.ok((await send(head(['Host: localhost', CLOSE]))).endsWith(PUBLIC))
  })

  it(`serves ${served.length} that look odd and are not`, async () => {
    for (const [what, lines] of served) {
      const answer = await send(Buffer.from(head([...lines, CLOSE])).toString('latin1'))
      assert.ok(answer.startsWith('HTTP/1.1 200 ') && answer.endsWith(PUBLIC), `${what}: ${answer.slice(0, 200)}`)
      assert.match(answer, /^content-security-policy: default-src 'none'; sandbox\r$/im)
    }
  })

  const describedBy = (describe: ShoalNode['describe']): ShoalNode => new Proxy(node, {
    get: (target, name) => {
      const value: unknown = name === 'describe' ? describe : Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) as unknown : value
    }
  })

  /** What came after so many requests were sent at once: until `count` answers are there, or the other side closes. */
  async function pipeline ({ url = '' }: HfServer, sent: number, count: number): Promise<{ answers: number, closed: boolean }> {
    return await new Promise(resolve => {
      let text = ''
      const socket = connect(Number(new URL(url).port), '127.0.0.1', () => { socket.write(head(['Host: localhost']).repeat(sent)) })
      const answers = (): number => text.split('HTTP/1.1 200 OK').length - 1
      socket.setEncoding('latin1')
      socket.on('error', () => undefined)
      socket.on('close', () => { resolve({ answers: answers(), closed: true }) })
      socket.on('data', (chunk: string) => {
        text += chunk
        if (answers() < count || !text.endsWith(PUBLIC)) return
        resolve({ answers: answers(), closed: false })
        socket.destroy()
      })
    })
  }

  it('answers what one connection asks one after the other, and cuts off who asks ahead without end', async () => {
    let [begun, open, most] = [0, 0, 0]
    const describe: ShoalNode['describe'] = async (...given) => {
      begun++
      most = Math.max(most, ++open)
      await new Promise(resolve => setTimeout(resolve, 20)) // as long as a manifest takes to come
      open--
      return await node.describe(...given)
    }
    const other = createHfServer({ node: describedBy(describe), host: '127.0.0.1', port: 0 })
    await other.start()
    try {
      const all = 1 + HF_PIPELINED_MAX
      assert.deepEqual(await pipeline(other, all, all), { answers: all, closed: false })
      assert.deepEqual([begun, most], [all, 1])
      assert.deepEqual(await pipeline(other, 20_000, 20_000), { answers: 0, closed: true })
      assert.equal(begun, all + 1)
    } finally {
      await other.stop()
    }
  })

  it('closes connections whose clients do not read a listing, and no others', async () => {
    const files = Array.from({ length: 40_000 }, (_, i) => ({ path: `${'x'.repeat(200)}/${String(i).padStart(5, '0')}`, size: 1, sha256: 'a'.repeat(64), gitSha1: undefined }))
    let isSlow = false
    const traffic = new EndpointTraffic()
    const server = createHfServer({
      host: '127.0.0.1', port: 0, stallTimeoutMs: 500, traffic,
      node: describedBy(async cid => {
        if (isSlow) await new Promise(resolve => setTimeout(resolve, 1_500)) // nothing to write is no stall
        return { cid, files }
      })
    })
    await server.start()
    const at = Number(new URL(server.url ?? '').port)
    const request = head(['Host: localhost'], `GET ${INFO}?blobs=true HTTP/1.1`)
    try {
      const idle = connect(at, '127.0.0.1').pause()
      idle.on('error', () => undefined)
      idle.write(request)
      await new Promise<void>(resolve => { traffic.listen(() => { resolve() }) })
      // What the kernel holds comes still.
      let bytes = 0
      idle.on('data', (chunk: Buffer) => { bytes += chunk.length }).resume()
      await new Promise(resolve => { idle.on('close', resolve) })
      const whole = (await (await fetch(`${server.url}${INFO}?blobs=true`)).arrayBuffer()).byteLength
      assert.ok(bytes < whole, `${bytes} of ${whole}`)
      isSlow = true
      assert.equal((await (await fetch(`${server.url}${INFO}?blobs=true`)).arrayBuffer()).byteLength, whole)
    } finally {
      await server.stop()
    }
  })

  it('goes on while clients send half a request, or do not read what they asked for', async () => {
    const halves = [
      'GET / HTTP/1.1\r\nHost: loc', `POST ${INFO}/paths-info/main HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\npaths=`, head(['Host: localhost'], 'GET /acme/tiny/resolve/main/large.bin HTTP/1.1')
    ]
    const sockets = Array.from({ length: 90 }, (_, i): Socket => {
      const socket = connect(port, '127.0.0.1')
      socket.pause()
      socket.on('error', () => undefined)
      socket.write(halves[i % halves.length] ?? '')
      return socket
    })
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 20; i++) assert.ok((await send(head(['Host: localhost', CLOSE]))).endsWith(PUBLIC))
    // Thirty of them have 360 MiB to read; what garbage there is comes on top of the buffers.
    assert.ok(process.memoryUsage().arrayBuffers - before < 128 * MiB)
    for (const socket of sockets) socket.destroy()
    assert.ok((await send(head(['Host: localhost', CLOSE]))).endsWith(PUBLIC))
  })
})
