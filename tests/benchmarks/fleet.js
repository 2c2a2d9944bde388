// What a team's stack costs in the library's own language: N stacks of ordinary L2 constructs, of as many
// resources of each type, and as many statements, as infra/ makes (tests/benchmarks/fleet.py counts both).
// node fleet.js CDK_JSON OUT COUNT WORKFLOW PACKAGE
"use strict";

const fs = require("fs");
const cdk = require("aws-cdk-lib");
const {
  aws_cloudwatch: cloudwatch,
  aws_cloudwatch_actions: actions,
  aws_events: events,
  aws_events_targets: targets,
  aws_iam: iam,
  aws_kms: kms,
  aws_lambda: lambda,
  aws_logs: logs,
  aws_s3: s3,
  aws_sns: sns,
  aws_ssm: ssm,
  aws_stepfunctions: sfn,
} = cdk;

// The functions of a stack, and how many statements each has beside the one for its log group.
const FUNCTIONS = {
  Prepare: 4, Rehearse: 4, Measure: 7, Signal: 4, Lock: 4, Estimate: 5, Train: 5, Watch: 5, Decide: 4,
  Approval: 6, Promote: 8, RetireOld: 9, Report: 7, CleanUp: 12, ChampionChanges: 12, RunStarter: 7, Reward: 0,
};

class Environment extends cdk.Stack {
  constructor(scope, id, { workflow, code, ...props }) {
    super(scope, id, { ...props, analyticsReporting: false });
    const key = new kms.Key(this, "Key", { enableKeyRotation: true, pendingWindow: cdk.Duration.days(7) });
    const bucket = (name, more) =>
      new s3.Bucket(this, name, {
        blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
        enforceSSL: true,
        minimumTLSVersion: 1.2,
        objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        lifecycleRules: [{ noncurrentVersionExpiration: cdk.Duration.days(90) }],
        removalPolicy: cdk.RemovalPolicy.DESTROY,
        ...more,
      });
    const accessLogs = bucket("AccessLogs", { encryption: s3.BucketEncryption.S3_MANAGED });
    const kept = (name) =>
      bucket(name, {
        versioned: true,
        encryption: s3.BucketEncryption.KMS,
        encryptionKey: key,
        bucketKeyEnabled: true,
        serverAccessLogsBucket: accessLogs,
        serverAccessLogsPrefix: `${name}/`,
      });
    const datasets = kept("Datasets");
    const artifacts = kept("Artifacts");
    // Conditions that differ keep the library from merging statements, as they do in infra/.
    const statement = (name, number) =>
      new iam.PolicyStatement({
        actions: ["s3:GetObject", "s3:PutObject"],
        resources: [artifacts.arnForObjects(`runs/*/${name}-${number}`), datasets.arnForObjects(`${name}/*`)],
        conditions: { StringEquals: { "aws:ResourceTag/rft:environment": `${name}-${number}` } },
      });
    const grant = (role, name, count) => {
      for (let number = 0; number < count; number++) role.addToPolicy(statement(name, number));
    };
    const group = (name) =>
      new logs.LogGroup(this, `${name}Logs`, {
        encryptionKey: key,
        retention: logs.RetentionDays.ONE_MONTH,
        removalPolicy: cdk.RemovalPolicy.DESTROY,
      });
    const customization = new iam.Role(this, "Customization", {
      assumedBy: new iam.ServicePrincipal("bedrock.amazonaws.com", {
        conditions: { StringEquals: { "aws:SourceAccount": this.account } },
      }),
    });
    grant(customization, "Customization", 6);
    const topic = new sns.Topic(this, "Topic", { masterKey: key, enforceSSL: true });
    const news = new iam.Role(this, "News", { assumedBy: new iam.ServicePrincipal("events.amazonaws.com") });
    grant(news, "News", 2);
    new events.Rule(this, "JobStateChange", {
      eventPattern: { source: ["aws.bedrock"], detail: { roleArn: [customization.roleArn] } },
      targets: [
        new targets.SnsTopic(topic, {
          role: news.withoutPolicyUpdates(),
          message: events.RuleTargetInput.fromText(`Job is ${events.EventField.fromPath("$.detail.jobStatus")}.`),
        }),
      ],
    });
    const champion = new ssm.StringParameter(this, "Champion", { stringValue: "none" });
    const functions = {};
    for (const [name, statements] of Object.entries(FUNCTIONS)) {
      const logGroup = group(name);
      const role = new iam.Role(this, `${name}Role`, {
        assumedBy: new iam.ServicePrincipal("lambda.amazonaws.com"),
      });
      role.addToPolicy(
        new iam.PolicyStatement({
          actions: ["logs:CreateLogStream", "logs:PutLogEvents"],
          resources: [logGroup.logGroupArn],
        }),
      );
      grant(role, name, statements);
      functions[name] = new lambda.Function(this, name, {
        code: lambda.Code.fromAsset(code),
        handler: `lambdas.workflow.${name}.handler`,
        runtime: lambda.Runtime.PYTHON_3_14,
        architecture: lambda.Architecture.ARM_64,
        timeout: cdk.Duration.minutes(5),
        memorySize: 512,
        role,
        logGroup,
        environment: {
          STACK: cdk.Aws.STACK_NAME,
          DATASETS: datasets.bucketName,
          ARTIFACTS: artifacts.bucketName,
          CHAMPION: champion.parameterName,
        },
      });
    }
    for (const name of ["CleanUp", "RunStarter"]) {
      functions[name].configureAsyncInvoke({
        onFailure: { bind: () => ({ destination: topic.topicArn }) },
      });
    }
    const role = new iam.Role(this, "WorkflowRole", {
      assumedBy: new iam.ServicePrincipal("states.amazonaws.com"),
    });
    grant(role, "Workflow", 11);
    const machine = new sfn.StateMachine(this, "Workflow", {
      definitionBody: sfn.DefinitionBody.fromString(workflow),
      definitionSubstitutions: Object.fromEntries(
        Object.entries(functions).map(([name, each]) => [name, each.functionArn]),
      ),
      role,
      tracingEnabled: true,
      logs: { destination: group("Workflow"), level: sfn.LogLevel.ALL },
    });
    for (const [name, count, holder] of [
      ["ReadTags", 1, functions.Train.role],
      ["SeeHolder", 1, functions.Lock.role],
      ["RunMaps", 2, role],
    ]) {
      const policy = new iam.Policy(this, name, { roles: [holder] });
      for (let number = 0; number < count; number++) policy.addStatements(statement(name, number));
    }
    const rule = new events.Rule(this, "RunEndedBadly", {
      eventPattern: { source: ["aws.states"], detail: { stateMachineArn: [machine.stateMachineArn] } },
    });
    rule.addTarget(new targets.LambdaFunction(functions.CleanUp));
    const version = functions.Reward.currentVersion;
    const minute = { period: cdk.Duration.minutes(1) };
    const reward = functions.Reward;
    for (const [name, metric] of Object.entries({
      RunFailed: machine.metricFailed(minute),
      RewardFailed: reward.metricErrors(minute),
      RewardThrottled: reward.metricThrottles(minute),
      RewardSlow: reward.metricDuration(minute),
      RewardUnscorable: new cloudwatch.Metric({ namespace: "RFT", metricName: "unscorable_share", ...minute }),
    })) {
      new cloudwatch.Alarm(this, name, { metric, threshold: 1, evaluationPeriods: 1 }).addAlarmAction(
        new actions.SnsAction(topic),
      );
    }
    for (const [name, value] of Object.entries({
      DatasetBucket: datasets.bucketName,
      ArtifactBucket: artifacts.bucketName,
      WorkflowArn: machine.stateMachineArn,
      Start: functions.RunStarter.functionName,
      RewardVersion: version.functionArn,
      RewardLogGroup: functions.Reward.logGroup.logGroupName,
      ChampionName: champion.parameterName,
      ChangeChampion: functions.ChampionChanges.functionName,
      TopicArn: topic.topicArn,
    })) {
      new cdk.CfnOutput(this, name, { value });
    }
  }
}

const [cdkJson, outdir, count, workflow, code] = process.argv.slice(2);
const { context } = JSON.parse(fs.readFileSync(cdkJson, "utf8"));
const app = new cdk.App({ builtinCloudFormationValidation: false, outdir, context });
for (let number = 0; number < Number(count); number++) {
  new Environment(app, `rft-team-${number}-dev`, {
    env: { account: "111122223333", region: "us-east-1" },
    tags: { team: `team-${number}`, stage: "dev" },
    workflow: fs.readFileSync(workflow, "utf8"),
    code,
  });
}
app.synth();
