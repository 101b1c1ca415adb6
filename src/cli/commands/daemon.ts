import type { Command } from 'commander'
import { action, collect } from '../context.ts'
import type { DaemonOptions } from '../daemon.ts'

const EXAMPLES = `
Examples:
  shoal daemon --listen /ip4/0.0.0.0/tcp/4108 --label rack=7
  shoal daemon --data /srv/shoal --set storage.quota=500GiB --set log.level=debug
  SHOAL_JOIN=shoal1... shoal daemon

Settings come from flags, over SHOAL_SET_* variables, over the file of --config or $SHOAL_CONFIG, over the defaults;
config/default.jsonc in the package explains each key. SIGTERM stops within five seconds, a second one at once.`

export function addDaemon (program: Command): void {
  program.command('daemon')
    .description('run a node; prints one line when it is ready')
    .option('--listen <maddr>', 'listen address (default: /ip4/0.0.0.0/tcp/4108); may be repeated', collect)
    .option('--join <invite>', 'invite or address of a swarm to join (default: $SHOAL_JOIN); may be repeated', collect)
    .option('--config <file>', 'configuration file, JSON with comments (default: $SHOAL_CONFIG)')
    .option('--set <key=value>', 'one configuration key, such as storage.quota=500GiB; may be repeated', collect)
    .option('--label <key=value>', 'what this host is, for placing copies, such as zone=a; may be repeated', collect)
    .addHelpText('after', EXAMPLES)
    .action(action(async (context, options: DaemonOptions) => {
      // Only the daemon needs the network stack: every other command starts without it.
      const { runDaemon } = await import('../daemon.ts')
      return await runDaemon(context, options)
    }))
}
