import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApiServer, type ApiServer } from '../../../src/api/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { CliProcess, shoal, type Finished } from '../../e2e/cli-process.ts'
import { CID, FakeNode } from '../api/fake-node.ts'
import { until } from '../../support/until.ts'

/** The program as users start it, over an API whose node says what the test wants to see told. */
describe('cli: replication commands', function () {
  this.timeout(30_000)
  let directory: string
  let fake: FakeNode
  let server: ApiServer
  let run: (...args: string[]) => Promise<Finished>

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'shoal-commands-'))
    fake = new FakeNode()
    server = createApiServer({ node: fake as unknown as ShoalNode, socketPath: join(directory, 'api.sock') })
    await server.start()
    run = async (...args) => await shoal(['--data', directory, ...args])
  })
  afterEach(async () => {
    await server.stop()
    await rm(directory, { recursive: true })
  })

  it('drain exits 0 only when nothing is left, and prints what is', async () => {
    const [words, json] = await Promise.all([run('drain', '--deadline', '90s'), run('drain', '--json')])
    assert.equal(words.code, 1)
    assert.match(words.stdout, new RegExp(`^MODEL +SHARD +REPLICAS\\n${CID} +1 +0/3\\n\\n1 shard not handed over in 2\\.0 s; `))
    assert.deepEqual([json.code, JSON.parse(json.stdout)], [1, { complete: false, seconds: 2, left: [{ model: CID, shard: 1, replicas: 0, target: 3 }] }])
    assert.deepEqual(new Set(fake.calls.map(String)), new Set(['drain,90000', 'drain,']))
    fake.drainComplete = true
    assert.deepEqual(await run('drain'), { code: 0, stdout: 'all is handed over, in 2.0 s; the node may go\n', stderr: '' })
  })

  it('refuses wrong numbers and times with exit code 2, and asks the node for nothing', async () => {
    const wrong = [
      ['add', '/m', '--replicas', '65'], ['add', '/m', '--replicas', ''], ['pin', CID, '--replicas', '1.5'], ['drain', '--deadline', 'soon'], ['drain', '--deadline', '0'],
      ['drain', '--deadline', '31d'], ['drain', 'now']
    ]
    for (const [args, { code, stdout }] of await Promise.all(wrong.map(async args => [args, await run(...args)] as const))) assert.deepEqual([code, stdout], [2, ''], args.join(' '))
    assert.deepEqual(fake.calls, [])
  })

  it('add prints the CID when the copy here is durable, and --wait ends when the replicas are', async () => {
    const waited = await run('add', '/m', '--replicas', '4', '--wait')
    assert.deepEqual([waited.code, waited.stdout], [0, `${CID}\n`])
    assert.match(waited.stderr, /^waiting for its replicas; Ctrl-C ends only the waiting\n(?:.*\n)*every shard has its replicas, after /m)
    assert.deepEqual(fake.calls, [['add', '/m', 4], ['replicated', CID]])
    fake.calls.length = 0
    assert.equal((await run('add', '/m', '--json')).code, 0)
    assert.deepEqual(fake.calls, [['add', '/m', undefined]])
  })

  it('gc says what it waits for', async () => {
    assert.deepEqual(await run('gc'), { code: 0, stdout: 'freed 0 B, 0 B of it leftovers\n', stderr: '' })
    let end = (): void => undefined
    fake.collected = new Promise(resolve => { end = resolve })
    const collecting = new CliProcess(['--data', directory, 'gc'])
    await collecting.until(() => collecting.stderr.includes('waiting: gc begins when what is being added now is added'))
    end()
    const { code, stdout } = await collecting.finished
    assert.deepEqual([code, stdout], [0, 'freed 0 B, 0 B of it leftovers\n'])
  })

  it('Ctrl-C ends the waiting and leaves the model', async () => {
    fake.replicatedAfterMs = 60_000
    const adding = new CliProcess(['--data', directory, 'add', '/m', '--wait'])
    await adding.until(() => adding.stdout.includes('\n'))
    await until('the node was asked for both', () => fake.calls.length >= 2)
    adding.signal('SIGINT')
    const { code, stdout, stderr } = await adding.finished
    assert.deepEqual([code, stdout], [130, `${CID}\n`])
    assert.ok(stderr.includes(`interrupted; ${CID} is added and goes on being replicated`), stderr)
  })

  it('pin tells the new target, status and show what they know', async () => {
    assert.equal((await run('pin', CID, '--replicas', '1')).stdout, `pinned ${CID}, 1 replica wanted\n`)
    assert.equal((await run('pin', CID)).stdout, `pinned ${CID}\n`)
    assert.equal((await run('pin', CID, '--replicas', '13')).code, 2)
    const [status, show, shards] = await Promise.all([run('status'), run('show', CID), run('show', CID, '--shards')])
    assert.match(status.stdout, new RegExp(`\\n\\nMODEL +REPLICAS +SHARDS +BELOW +MISSING +REPAIRING +LEFT +PROVEN\\n${CID} +1/3 +2 +1 +5 B +1 +40 s +1\\.\\d s ago\\n$`))
    assert.match(status.stdout, /^brake +ON: /m)
    assert.match(show.stdout, /^replicas +1 of 3 at the fewest \(min 2, max 5\), 1 of 2 shards below target, 1 being repaired, about 40 s left\ndomains +zone a, unlabelled$/m)
    assert.doesNotMatch(show.stdout, /SHARD/)
    assert.match(shards.stdout, /^ +0 +5 B +1\/3 +p +proven +1\.\d s ago +zone=a\n +q +claimed +never +-\n +1 +5 B +1\/3 \+ +p /m)
  })
})
