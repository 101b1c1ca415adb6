import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MiB } from '../../src/base/index.ts'
import { Hub } from '../support/hub.ts'
import { CliProcess, shoal } from './cli-process.ts'
import { until } from '../support/until.ts'

interface Ready { hf: string }

describe('a Hub and the command line', function () {
  this.timeout(90_000)
  const files = { 'config.json': Buffer.from('{"model_type":"llama"}'), 'model.safetensors': randomBytes(6 * MiB + 1) }
  const total = Object.values(files).reduce((sum, { length }) => sum + length, 0)
  const daemons: CliProcess[] = []
  let root = ''
  let hub: Hub

  const start = async (name: string, invite?: string): Promise<{ daemon: CliProcess, run: (...args: string[]) => Promise<string>, hf: string }> => {
    const daemon = new CliProcess([
      'daemon', '--data', join(root, name), '--json', '--listen', '/ip4/127.0.0.1/tcp/0', ...invite === undefined ? [] : ['--join', invite],
      '--set', 'hf.listen=127.0.0.1:0', '--set', `hf.upstream=${hub.url}/`, '--set', 'replication.target=0', '--set', 'replication.min=0'
    ])
    daemons.push(daemon)
    await daemon.until(() => daemon.stdout.includes('\n'))
    const run = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await shoal(['--data', join(root, name), ...args])
      assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
      return stdout.trim()
    }
    return { daemon, run, hf: (JSON.parse(daemon.stdout) as Ready).hf }
  }

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-upstream-'))
    hub = await Hub.start()
    hub.push('org/model', files)
  })
  after(async () => {
    for (const daemon of daemons) if (!daemon.ended) daemon.signal('SIGTERM')
    await Promise.all(daemons.map(async daemon => { await daemon.finished }))
    await hub.stop()
    await rm(root, { recursive: true, force: true })
  })

  it('one node fetches, is seen to, is killed without a word, and the other goes on', async () => {
    const one = await start('one')
    const two = await start('two', (await one.run('invite')).split('\n').at(-1))
    hub.faults.bytesPerSecond = MiB / 2
    const first = fetch(`${one.hf}/org/model/resolve/main/config.json`)
    first.catch(() => undefined)
    await until('some of it came', () => hub.fileBytes >= MiB)
    const second = fetch(`${two.hf}/org/model/resolve/main/model.safetensors`)
    for (const [node, state] of [[one, /fetching$/m], [two, /\S+ fetches it$/m]] as const) {
      let shown = ''
      await until('it is fetched', async () => state.test(shown = await node.run('ps')), { detail: () => `; ps shows\n${shown}` })
      assert.match(shown, /^UPSTREAM +DONE +SIZE +FOR +STATE\norg\/model@[0-9a-f]{12} +\d+ ?% /m)
    }
    assert.match(await one.run('status'), new RegExp(`^upstream +${hub.url}: 0 models fetched .*\n +org/model: fetching, `, 'm'))
    one.daemon.signal('SIGKILL')
    await one.daemon.finished
    hub.faults.bytesPerSecond = 100 * MiB
    const answer = await second
    assert.deepEqual([answer.status, Buffer.from(await answer.arrayBuffer()).equals(files['model.safetensors'])], [200, true])
    assert.ok(hub.fileBytes <= 2.05 * total, `${hub.fileBytes} of ${total}`)
    // A reader has its bytes as they come; the model is published, and linked, when all of them have.
    let shown = ''
    await until('it is linked', async () => !(shown = await two.run('links')).startsWith('no links yet'), { withinMs: 10_000 })
    assert.match(shown, /^org\/model +main +bafy/m)
    const links = JSON.parse(await two.run('links', '--json')) as Array<{ revision: string, origin: { commit: string } }>
    for (const { revision } of links) assert.match(await two.run('unlink', `org/model@${revision}`), /^unlinked org\/model/)
  })

  it('what a fetch that broke off has left is named by doctor, and freed by gc', async () => {
    const node = await start('left')
    const key = join(root, 'left', 'origin', 'f'.repeat(64))
    const old = Date.now() / 1_000 - 2 * 3_600
    await mkdir(join(key, 'parts'), { recursive: true })
    await writeFile(join(key, 'parts', 'x'), randomBytes(MiB))
    const doctor = async (): Promise<string> => (await shoal(['doctor', '--data', join(root, 'left')])).stdout
    assert.doesNotMatch(await doctor(), /came from the upstream in part/)
    for (const path of [join(key, 'parts', 'x'), join(key, 'parts'), key]) await utimes(path, old, old)
    assert.match(await doctor(), /warn +disk +1(\.\d+)? Mi?B of 1 model that came from the upstream in part[^]*shoal gc/)
    assert.match(await node.run('gc', '--dry-run'), /^would free 1(\.\d+)? Mi?B, 1(\.\d+)? Mi?B of it leftovers$/m)
    assert.match(await node.run('gc'), /^freed 1(\.\d+)? Mi?B/m)
    assert.match(await node.run('gc'), /^freed 0 B/m)
    assert.doesNotMatch(await doctor(), /came from the upstream in part/)
  })

  it('an address with a user in it is refused', async () => {
    const { code, stderr } = await shoal(['daemon', '--data', join(root, 'bad'), '--set', 'hf.upstream=https://me:secret@hub.example'])
    assert.equal(code, 2)
    assert.match(stderr, /hf\.upstream must be an address such as https:\/\/huggingface\.co/)
  })
})
